//! What a method needs of a sum, and what a state lacks for another method.

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{Q, once_with, rename_in};

use super::{ShardRows, SumType, daemon_with};

/// Shards of rows and sums without a part of the sums.
fn without(part: &'static str) -> impl Iterator<Item = Vec<TensorToWrite>> {
    ShardRows::plain(4).map(move |of| {
        let mut tensors = of.mixed(SumType::F64);
        tensors.retain(|tensor| !tensor.name.ends_with(part));
        tensors
    })
}

fn solve(daemon: &TestDaemon, method: &str) -> qera_tests::daemon::EndedRun {
    let solve = ["solve", "--out", method, "--state", "qera-out/state"];
    let more = [
        "--checkpoint",
        "checkpoint",
        "--rank",
        "2",
        "--block-size",
        "4",
    ];
    daemon.run(&[&solve[..], &more, &["--method", method]].concat())
}

/// Each missing part is refused by name for the method that needs it, and by no other.
#[test]
fn what_the_method_needs_must_be_there() {
    for (part, method, others) in [
        ("::abs_sum", "lqer-mean", ["exact", "lqer"]),
        ("::batch_max_mean_abs", "lqer", ["approx", "lqer-mean"]),
    ] {
        let daemon = daemon_with(without(part));
        let run = daemon.run(&once_with(&["--method", method]));
        let key = format!("sum '{Q}::xtx' comes without '{Q}{part}', which --method {method}");
        expect(
            &run,
            1,
            &[&key, "none of its shards gave a row (4 refused)"],
        );
        for other in others {
            let daemon = daemon_with(without(part));
            let options = once_with(&["--method", other]);
            expect(&daemon.run(&options), 0, &["4 shards folded"]);
            let run = solve(&daemon, method);
            let said =
                format!("900 of its rows came as sums without {part}, which --method {method}");
            assert!(run.code != 0 && run.log.contains(&said), "{}", run.log);
        }
    }
}

/// Rows beside do not make good what the sums of others lack, and nothing else is lost.
#[test]
fn a_state_that_lacks_a_part_serves_the_other_methods() {
    let daemon = daemon_with(without("::abs_sum"));
    rename_in(
        &daemon,
        "shard-8",
        &ShardRows::plain(9).last().unwrap().as_rows(0..4),
    );
    expect(&daemon.run(&once_with(&[])), 0, &["5 shards folded"]);
    for method in ["exact", "approx", "lqer", "zeroquant-v2"] {
        expect(&solve(&daemon, method), 0, &["3 layers corrected"]);
    }
}
