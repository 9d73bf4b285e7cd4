//! What leaves nothing out: `full`, a batch, and a run with `full` after one that did.

use std::fs;

use qera_tests::daemon::expect;
use qera_tests::event::event;
use qera_tests::live::arrive;
use qera_tests::three_layers::once_with;

use super::two_texts::{SHARD_ROWS, Text, daemon_with_first_text, write_shard_of};
use super::{number, run};

/// The default, and a batch whatever is said, fold every row though the layers have converged.
#[test]
fn full_and_once_leave_nothing_out() {
    let (shards, rows) = (20, 20 * SHARD_ROWS);
    let loose = ["--tolerance", "0.2"];
    let given = ["--tolerance", "0.2", "--after-convergence", "full"];
    let batch = daemon_with_first_text(shards);
    let stop = [&loose[..], &["--after-convergence", "stop"]].concat();
    expect(&batch.run(&once_with(&stop)), 0, &[]);
    let batch = batch.adapter("qera-out");
    for more in [&loose[..], &given] {
        let daemon = daemon_with_first_text(shards);
        let live = run(&daemon, 20, more);
        assert!(!live.heard(&event("closed")), "{}", live.log);
        let adapter = daemon.adapter("qera-out");
        assert!(adapter.bytes == batch.bytes);
        for layer in adapter.layers() {
            assert_eq!(layer["converged"], true, "{layer}");
            assert_eq!(layer["folding"], "open");
            assert_eq!(number(layer, "rows"), rows);
            assert_eq!(number(layer, "rows_skipped"), 0);
        }
    }
    for layer in batch.layers() {
        assert_eq!(number(layer, "rows"), rows);
        assert_eq!(number(layer, "rows_skipped"), 0);
    }
}

/// A run with `full` on the state of one with `stop` folds everything from there on.
#[test]
fn a_closed_site_is_open_to_a_run_that_leaves_nothing_out() {
    let daemon = daemon_with_first_text(30);
    let loose = ["--tolerance", "0.05"];
    let stop = [&loose[..], &["--after-convergence", "stop"]].concat();
    run(&daemon, 30, &stop);
    let before = daemon.adapter("qera-out");
    assert!(before.layers().iter().all(|l| l["folding"] == "closed"));
    // Arrived while nobody listened.
    let later = daemon.path().join("later");
    fs::create_dir(&later).unwrap();
    write_shard_of(Text::First, &later, 30);
    arrive(&later.join("030.safetensors"), &daemon.watched(), "030");
    run(&daemon, 31, &loose);
    let after = daemon.adapter("qera-out");
    for (layer, before) in after.layers().iter().zip(before.layers()) {
        assert_eq!(layer["folding"], "open", "{layer}");
        assert_eq!(layer["rows_skipped"], before["rows_skipped"]);
        assert_eq!(number(layer, "rows"), number(before, "rows") + SHARD_ROWS);
    }
}
