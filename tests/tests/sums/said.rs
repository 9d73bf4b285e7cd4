//! What is said of sums: by the plan, by a replay, in an exported imatrix.

use std::fs;

use qera_tests::daemon::expect;
use qera_tests::imatrix_file::read_gguf_imatrix;
use qera_tests::three_layers::{LIVE_OPTIONS, once_with};
use serde_json::Value;

use super::{ShardRows, SumType, assert_near, daemon_with, once};

#[test]
fn the_plan_counts_them() {
    let plan = |tensors: fn(ShardRows) -> Vec<_>| -> Value {
        let daemon = daemon_with(ShardRows::plain(4).map(tensors));
        let options = [
            &LIVE_OPTIONS[..],
            &["plan", "--once", "--log-format", "json"],
        ]
        .concat();
        let run = daemon.run(&options);
        assert_eq!(run.code, 0, "{}", run.log);
        serde_json::from_str(&run.output).unwrap()
    };
    let rows = plan(|of| of.as_rows(0..4));
    let mixed = plan(|of| of.mixed(SumType::F64));
    let sums = plan(|of| of.as_sums(0..4, SumType::F32));
    for (plan, summed) in [(&rows, None), (&mixed, Some(900)), (&sums, Some(1200))] {
        for site in plan["sites"].as_array().unwrap() {
            assert_eq!(site["rows"], 1200, "{site}");
            assert_eq!(site["summed_rows"].as_u64(), summed, "{site}");
        }
    }
    let flying = |plan: &Value| plan["stages"][0]["bytes"].as_u64().unwrap();
    // Three shards, of each both sites' triangles and two numbers for each channel.
    assert_eq!(flying(&sums), 3 * 4 * (36 + 78 + 2 * 20));
    assert!(flying(&mixed) < flying(&rows));
    let held_out = |plan: &Value| plan["sites"][0]["window_bytes"].as_u64().unwrap();
    assert_eq!(
        (held_out(&sums), 4 * held_out(&mixed)),
        (0, held_out(&rows))
    );

    let daemon = daemon_with(ShardRows::plain(4).map(|of| of.mixed(SumType::F64)));
    let text = daemon.run(&[&LIVE_OPTIONS[..], &["plan", "--once"]].concat());
    assert!(
        text.output.contains("900 of the rows come as sums"),
        "{}",
        text.output
    );
}

#[test]
fn a_replay_says_that_it_is_of_the_rows_alone() {
    let daemon = daemon_with(ShardRows::plain(4).map(|of| of.mixed(SumType::F64)));
    expect(&daemon.run(&once_with(&["--emit-base"])), 0, &[]);
    let replay = ["verify", "--json", "--adapter", "qera-out/current"];
    let more = ["--replay", "activations", "--checkpoint", "checkpoint"];
    let run = daemon.run(&[&replay[..], &more].concat());
    assert_eq!(run.code, 0, "{}{}", run.output, run.log);
    let said: Value = serde_json::from_str(&run.output).unwrap();
    let notes = said["notes"].to_string();
    assert!(
        notes.contains("4 of 4 shards have sums in the place of rows"),
        "{said}"
    );
    for layer in said["replay"][0]["layers"].as_array().unwrap() {
        assert_eq!(layer["rows"], 300, "{layer}");
        assert_eq!(layer["verdict"], "other-rows", "{layer}");
    }
}

/// Squares are there; what is not known of all rows, their sums, is left out.
#[test]
fn an_exported_imatrix_has_squares_and_no_sums_of_x() {
    let exported = |daemon: &qera_tests::daemon::TestDaemon| {
        let export = [
            "export",
            "imatrix",
            "--state",
            "qera-out/state",
            "--out",
            "out.gguf",
        ];
        let run = daemon.run(&[&export[..], &["--checkpoint", "checkpoint"]].concat());
        expect(&run, 0, &["3 entries; 4 shards"]);
        read_gguf_imatrix(&fs::read(daemon.path().join("out.gguf")).unwrap()).tensors
    };
    let rows = exported(&once(ShardRows::plain(4).map(|of| of.as_rows(0..4)), &[]));
    let sums = exported(&once(
        ShardRows::plain(4).map(|of| of.mixed(SumType::F64)),
        &[],
    ));
    assert_eq!((rows.len(), sums.len()), (9, 6));
    for (name, of_sums) in sums {
        for (ours, theirs) in of_sums.values.iter().zip(&rows[&name].values) {
            assert_near((*ours).into(), (*theirs).into(), 1e-6, &name);
        }
    }
}
