//! Output errors that are no f32 numbers: the layer is left alone by name, all others are corrected
//! as if it were not there, and the state does not forget that rows are missing in its sketch.

use qera_tests::daemon::{EndedRun, TestDaemon, expect};
use qera_tests::event::{event, published};
use qera_tests::live::Live;

use crate::equal::Left;
use crate::model::{K, O, Q, ROWS, live, once, with_checkpoint, write_scaled, write_shard};

/// The weights of [`K`] are f32 numbers, and so are the output errors of the usual rows.
const HUGE: f32 = 1e32;
/// With rows that are so many times as large they are not.
const LARGE: f32 = 1e8;
/// The shard with such rows.
const OVERFLOWING: usize = 2;

const CANNOT: &str = "model.layers.0.self_attn.k_proj: cannot be solved: products overflow";

/// The shards, of which one overflows.
fn with_overflow(factor_of_k: f32) -> TestDaemon {
    let daemon = with_checkpoint(factor_of_k);
    for shard in [0, 1, 3] {
        write_shard(&daemon, shard);
    }
    write_scaled(&daemon, OVERFLOWING, LARGE);
    daemon
}

fn expect_lost(run: &EndedRun, becomes: &str) {
    expect(run, 3, &[CANNOT, becomes]);
}

#[test]
fn it_goes_out_uncorrected_and_the_others_do_not_know_of_it() {
    let daemon = with_overflow(HUGE);
    let run = daemon.run(&once(&["--threads", "1"]));
    expect_lost(&run, "it goes out uncorrected");
    let said = ["2 layers corrected", "1 layers that cannot be solved"];
    expect(&run, 3, &said);
    let adapter = daemon.adapter("qera-out");
    assert_eq!(adapter.layer(K)["status"], "failed");
    assert!(adapter.layer(K).get("sketch").is_none());
    let targets = adapter.config["target_modules"].as_array().unwrap();
    assert!(!targets.contains(&"k_proj".into()), "{targets:?}");
    expect(&daemon.verify(&[]), 0, &[]);

    let alone = with_overflow(HUGE);
    expect(&alone.run(&once(&["--exclude", K])), 0, &[]);
    let without = alone.adapter("qera-out");
    for module in [Q, O] {
        let layer = adapter.layer(module);
        assert_eq!(layer["status"], "solved");
        assert_eq!(layer, without.layer(module));
        assert_eq!(adapter.factors(module), without.factors(module));
    }
    assert!(adapter.layer(Q).get("sketch").is_some());

    // Whatever the threads, and once more from the state.
    let threads = with_overflow(HUGE);
    expect_lost(&threads.run(&once(&["--threads", "3"])), "uncorrected");
    Left::of(&threads).assert_equals(&Left::of(&daemon), "three threads");
    let solve = once(&["--out", "again", "--state", "qera-out/state"]);
    let solve = [&["solve"], &solve[3..]].concat();
    expect_lost(&daemon.run(&solve), "it goes out uncorrected");
    assert_eq!(daemon.adapter("again").factors(Q), adapter.factors(Q));
}

/// What overflows are the rows beside these weights, not the rows.
#[test]
fn with_other_weights_the_same_rows_serve() {
    let daemon = with_overflow(1.0);
    expect(&daemon.run(&once(&[])), 0, &["3 layers corrected"]);
}

#[test]
fn where_there_is_no_rest_the_run_fails() {
    let daemon = with_overflow(HUGE);
    let run = daemon.run(&once(&["--include", K]));
    expect(&run, 1, &["k_proj: products overflow"]);
    assert!(!daemon.path().join("qera-out/current").exists());
}

/// A run a shard. Once rows were lost, the layer keeps the correction that it had, although what
/// comes afterwards would fit.
#[test]
fn it_keeps_its_last_correction_from_then_on() {
    let daemon = with_checkpoint(HUGE);
    let run = |shard: usize, factor| {
        write_scaled(&daemon, shard, factor);
        daemon.run(&once(&[]))
    };
    expect(&run(0, 1.0), 0, &["3 layers corrected"]);
    let before = daemon.adapter("qera-out");
    expect_lost(&run(OVERFLOWING, LARGE), "it keeps its last correction");
    expect_lost(&run(3, 1.0), "it keeps its last correction");
    let after = daemon.adapter("qera-out");
    assert_eq!(after.factors(K), before.factors(K));
    assert_ne!(after.factors(Q), before.factors(Q));
    expect(&daemon.verify(&[]), 0, &[]);
}

/// The run goes on, also from a snapshot in which rows are missing; what it had of the layer stays.
#[test]
fn a_live_run_goes_on() {
    let daemon = with_checkpoint(HUGE);
    let mut run = Live::start(daemon.command(&live(&["--idle-publish", "0.5"])));
    write_shard(&daemon, 0);
    run.wait_for(&published(1));
    let first = daemon.adapter("qera-out");
    write_scaled(&daemon, OVERFLOWING, LARGE);
    run.wait_for(&event("warning").containing("message", "cannot be solved"));
    run.wait_for(&published(2));
    run.kill();
    let mut run = Live::start(daemon.command(&live(&["--idle-publish", "0.5"])));
    write_shard(&daemon, 3);
    run.wait_for(&published(3));
    assert_eq!(run.stop(), Some(0), "{}", run.log);
    let cannot = event("warning").containing("message", "cannot be solved");
    assert!(run.heard(&cannot), "{}", run.log);
    let adapter = daemon.adapter("qera-out");
    assert_eq!(adapter.factors(K), first.factors(K));
    let rows = |module: &str| adapter.layer(module)["rows"].as_u64().unwrap();
    assert_eq!(
        [Q, K, O].map(rows),
        [3 * ROWS as u64, ROWS as u64, 3 * ROWS as u64]
    );
}
