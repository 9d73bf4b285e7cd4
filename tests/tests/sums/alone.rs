//! Sites whose rows all came as sums: there is nothing to hold out, which is said by name.

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::event::{event, published};
use qera_tests::live::Live;
use qera_tests::three_layers::{DOWN, K, Q, live_with, once_with, rename_in};

use super::{ShardRows, SumType, assert_near, daemon_with, number, once};

/// Of the second site rows and sums, of the first sums alone.
fn first_site_alone() -> TestDaemon {
    daemon_with(ShardRows::plain(4).map(|of| {
        let mut tensors = of.mixed(SumType::F64);
        tensors.retain(|tensor| tensor.name != Q);
        tensors
    }))
}

/// The shrinkage has to be chosen on something; given one, the correction is that of the rows.
#[test]
fn automatic_shrinkage_is_refused_and_a_given_one_is_taken() {
    let daemon = first_site_alone();
    let run = daemon.run(&once_with(&[]));
    let said = [
        "q_proj: cannot be solved: all 900 rows came as sums, and --shrinkage auto is chosen on held-out rows",
        "k_proj: cannot be solved: all 900 rows came as sums",
        "2 layers that cannot be solved",
        "1 layers corrected",
    ];
    expect(&run, 3, &said);
    let adapter = daemon.adapter("qera-out");
    assert_eq!(adapter.layer(K)["status"], "failed");
    assert_eq!(adapter.layer(DOWN)["status"], "solved");

    let given = ["--shrinkage", "0.1"];
    let solve = ["solve", "--out", "given", "--state", "qera-out/state"];
    let more = [
        "--checkpoint",
        "checkpoint",
        "--rank",
        "2",
        "--block-size",
        "4",
    ];
    let run = daemon.run(&[&solve[..], &more, &given].concat());
    let said = [
        "k_proj: all 900 rows came as sums: there is no held-out error",
        "3 layers corrected",
    ];
    expect(&run, 0, &said);
    let rows = once(ShardRows::plain(4).map(|of| of.as_rows(1..4)), &given);
    let sums = daemon.adapter("given");
    assert!(
        sums.layer(Q)["held_out_error"].is_null(),
        "{}",
        sums.layer(Q)
    );
    for layer in [Q, K] {
        let found = sums.layer(layer).pointer("/error/with").unwrap().as_f64();
        assert_near(
            found.unwrap(),
            number(&rows, layer, "/error/with"),
            3e-5,
            layer,
        );
    }
}

/// Where R is not gathered, errors are measured on rows.
#[test]
fn a_diagonal_method_asks_for_rows_to_measure_on() {
    let run = first_site_alone().run(&once_with(&["--method", "approx"]));
    let said = [
        "q_proj: cannot be solved: all 900 rows came as sums, and the error of a --method approx correction is measured on rows",
        "1 layers corrected",
    ];
    expect(&run, 3, &said);
}

/// A live run waits for rows, and solves the site when some come.
#[test]
fn a_live_run_waits_for_rows() {
    let shards: Vec<_> = ShardRows::plain(4).collect();
    let daemon = daemon_with(shards[..2].iter().map(|of| {
        let mut tensors = of.mixed(SumType::F32);
        tensors.retain(|tensor| tensor.name != Q);
        tensors
    }));
    let mut live = Live::start(daemon.command(&live_with(&["--idle-publish", "1"])));
    live.wait_for(&published(2));
    assert_eq!(daemon.adapter("qera-out").layer(Q)["status"], "failed");
    rename_in(&daemon, "shard-2", &shards[2].mixed(SumType::F32));
    live.wait_for(&published(3));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let adapter = daemon.adapter("qera-out");
    assert_eq!(adapter.layer(Q)["status"], "solved");
    assert_eq!(adapter.layer(Q)["rows"], 2 * 225 + 300);
}

/// Where no layer can be solved yet there is nothing to publish, and the run goes on.
#[test]
fn a_live_run_with_nothing_but_sums_goes_on() {
    let shards: Vec<_> = ShardRows::plain(2).collect();
    let daemon = daemon_with(shards[..1].iter().map(|of| of.as_sums(0..4, SumType::F32)));
    let mut live = Live::start(daemon.command(&live_with(&["--idle-publish", "1"])));
    live.wait_for(&event("warning").containing("message", "cannot be solved"));
    // The folder is idle for longer than the run waits.
    std::thread::sleep(core::time::Duration::from_secs(3));
    rename_in(&daemon, "shard-1", &shards[1].mixed(SumType::F32));
    live.wait_for(&published(2));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert_eq!(daemon.adapter("qera-out").layer(DOWN)["status"], "solved");
}

/// What needs no rows is measured on some all the same.
#[test]
fn a_method_without_rows_is_measured_on_rows() {
    for method in ["zeroquant-v2", "w-only"] {
        let daemon = daemon_with(ShardRows::plain(2).map(|of| of.as_sums(0..4, SumType::F64)));
        let run = daemon.run(&once_with(&["--method", method]));
        let why = format!("the error of a --method {method} correction is measured on rows");
        expect(&run, 1, &[&why]);
    }
}

/// Without a checkpoint a sum makes its site as rows do, and is solved later.
#[test]
fn sums_are_gathered_without_a_checkpoint() {
    let direct = once(ShardRows::plain(4).map(|of| of.mixed(SumType::F32)), &[]);
    let daemon = daemon_with(ShardRows::plain(4).map(|of| of.mixed(SumType::F32)));
    let gather = ["--once", "--watch", "activations", "--state", "gathered"];
    expect(
        &daemon.run(&gather),
        0,
        &["gathered holds the statistics of 4 shards"],
    );
    let solve = ["solve", "--out", "qera-out", "--state", "gathered"];
    let more = [
        "--checkpoint",
        "checkpoint",
        "--rank",
        "2",
        "--block-size",
        "4",
    ];
    expect(
        &daemon.run(&[&solve[..], &more].concat()),
        0,
        &["3 layers corrected"],
    );
    assert_eq!(daemon.adapter("qera-out").layer(Q)["rows"], 1200);
    assert!(daemon.adapter("qera-out").bytes == direct.adapter("qera-out").bytes);

    let alone = daemon_with(ShardRows::plain(4).map(|of| of.as_sums(0..4, SumType::F32)));
    expect(
        &alone.run(&gather),
        0,
        &["gathered holds the statistics of 4 shards"],
    );
}
