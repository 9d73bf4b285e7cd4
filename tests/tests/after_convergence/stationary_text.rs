//! Real text, which stays the same: rows are left out, and none of it is taken for a drift.

use std::path::Path;

use qera_tests::adapter::Adapter;
use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::event::event;
use qera_tests::fixture::{BLOCKS, FixtureModel, fixture_run, fixtures, selection, write_stream};
use qera_tests::live::Live;
use qera_tests::tier;

use super::{BINARY, assert_same, number, with_both_modes};

/// Shards of the stream, and sequences of 128 rows in each.
const SHARDS: usize = 22;
const SEQUENCES: usize = 16;

/// Blocks of the fixture's model that are calibrated.
fn blocks() -> usize {
    tier::cases(2, BLOCKS)
}

fn run_on_stream(watched: &Path, mode: &str, threads: &str) -> TestDaemon {
    let daemon = TestDaemon::new(BINARY);
    let tolerance = ["--tolerance", "0.05", "--idle-publish", "1"];
    let mode = ["--after-convergence", mode, "--threads", threads];
    let options = fixture_run(watched, blocks(), &[tolerance, mode].concat());
    let mut live = Live::start(daemon.command(&options));
    daemon.wait_until_idle(SHARDS);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert!(live.heard(&event("closed")), "{}", live.log);
    assert!(!live.heard(&event("reopened")), "{}", live.log);
    daemon
}

/// Rows are left out after convergence and counted, no drift is seen where there is none, and the
/// bytes do not depend on the number of threads.
#[test]
fn a_stationary_stream_is_left_out_and_counted() {
    let stream = tempfile::tempdir().unwrap();
    let model = FixtureModel::load_first(blocks());
    let shards = write_stream(stream.path(), &model, SHARDS, SEQUENCES);
    assert_eq!(shards.len(), SHARDS);
    let total = (SHARDS * SEQUENCES * 128) as u64;
    with_both_modes(|mode| {
        let one = run_on_stream(stream.path(), mode, "1");
        let two = run_on_stream(stream.path(), mode, "2");
        assert_same(&one, &two);
        let adapter = one.adapter("qera-out");
        let mut closed = 0;
        for layer in adapter.layers() {
            let (rows, skipped) = (number(layer, "rows"), number(layer, "rows_skipped"));
            assert_eq!(rows + skipped, total, "{layer}");
            assert_eq!(layer["folding"] == "closed", skipped > 0, "{layer}");
            closed += usize::from(skipped > 0);
            if skipped > 0 {
                assert_eq!(layer["converged"], true, "{layer}");
            }
        }
        assert!(closed >= 8, "{closed}");
        check_folded(mode, &adapter);
        check_status(&one, &adapter);
        check_another_adapter(&one, &adapter);
    });
}

/// down_proj of the second layer closes early: with `stop` at a solve point of whole shards, with
/// `sample` a sixteenth of the rest is folded as well.
fn check_folded(mode: &str, adapter: &Adapter) {
    let layer = adapter.layer("model.layers.1.mlp.down_proj");
    let (rows, skipped) = (number(layer, "rows"), number(layer, "rows_skipped"));
    let closed_at = 10_240;
    // Evidence goes on: it is of rows that came after the site was closed.
    assert!(number(&layer["evidence"], "rows") > 30_000, "{layer}");
    if mode == "stop" {
        assert_eq!(rows, closed_at);
    } else {
        let share = (rows - closed_at) as f64 / (rows - closed_at + skipped) as f64;
        assert!((0.03..0.1).contains(&share), "{share}");
        assert_eq!(rows % 128, 0, "whole sequences");
    }
}

fn check_status(daemon: &TestDaemon, adapter: &Adapter) {
    let status = daemon.status();
    let table = daemon.run(&["status"]).output;
    let shown = status["layers"].as_array().unwrap();
    for (shown, layer) in shown.iter().zip(adapter.layers()) {
        assert_eq!(shown["rows"], layer["rows"]);
        assert_eq!(shown["rows_skipped"], layer["rows_skipped"]);
        let closed = shown["rows_skipped"] != 0;
        assert_eq!(shown["status"] == "closed", closed, "{shown}");
        let name = layer["name"].as_str().unwrap();
        let line = table.lines().find(|line| line.starts_with(name)).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[3], shown["rows_skipped"].to_string(), "{line}");
    }
}

/// Another adapter from the same state says how much it did not see.
fn check_another_adapter(daemon: &TestDaemon, adapter: &Adapter) {
    let model = fixtures().join("model").display().to_string();
    let state = ["--state", "qera-out/state", "--quantizer", "mxint3"];
    let solve = ["solve", "--checkpoint", &model, "--out", "other"];
    let solve = solve.into_iter().chain(state).map(Into::into);
    let solve: Vec<String> = solve.chain(selection(blocks())).collect();
    expect(&daemon.run(&solve), 0, &[]);
    let other = daemon.adapter("other");
    for (ours, theirs) in other.layers().iter().zip(adapter.layers()) {
        assert_eq!(ours["rows_skipped"], theirs["rows_skipped"]);
    }
}
