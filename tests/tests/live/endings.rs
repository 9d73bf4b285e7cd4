//! How live runs end and what they say on the way: by themselves, without input, by a layer that
//! cannot be solved; commands that are told.

use core::time::Duration;
use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::event::{event, folded};
use qera_tests::live::Live;
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{
    DOWN, Q, daemon_with_shards, daemon_without_shards, live_with, once_with, rename_in,
    sine_values, write_checkpoint, write_rows_of_both_sites,
};

use super::{BINARY, RunningDaemon, begin_on_three_layers};

#[test]
fn the_command_is_told_of_each_generation() {
    let told = "echo $QERA_GENERATION $QERA_PATH >> told; test -e $QERA_CURRENT/adapter_config.json && exit 7";
    let RunningDaemon { daemon, mut live } = begin_on_three_layers(&["--on-publish", told]);
    write_rows_of_both_sites(&daemon, "a", 0.0);
    live.wait_for(&event("published").with("generation", 1));
    let failed = event("warning").with("subject", "--on-publish");
    live.wait_for(&failed.containing("message", "exit status: 7"));
    assert_eq!(
        live.stop(),
        Some(0),
        "a failing command is not fatal: {}",
        live.log
    );
    let told = fs::read_to_string(daemon.path().join("told")).unwrap();
    let path = fs::canonicalize(daemon.path().join("qera-out/generations/000001")).unwrap();
    assert!(
        told.starts_with(&format!("1 {}\n", path.display())),
        "{told}"
    );
}

/// Somebody removed what an engine follows: the corrections are there, and nobody finds them.
#[test]
fn a_run_does_not_end_content_without_its_current_link() {
    let RunningDaemon { daemon, mut live } = begin_on_three_layers(&[]);
    write_rows_of_both_sites(&daemon, "a", 0.0);
    live.wait_for(&event("published").with("generation", 1));
    daemon.wait_until_idle(1);
    fs::remove_file(daemon.path().join("qera-out/current")).unwrap();
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let gone = event("warning").with("subject", "current");
    let gone = gone.containing("message", "leads nowhere: the next start publishes again");
    assert!(live.heard(&gone), "{}", live.log);
    let run = daemon.run(&once_with(&[]));
    expect(&run, 0, &["published generation"]);
}

/// A run that is killed between a publication and its command has published, and not told.
#[test]
fn a_generation_that_was_not_told_is_told_by_the_next_run() {
    let daemon = daemon_with_shards(BINARY);
    let told = || fs::read_to_string(daemon.path().join("told")).unwrap_or_default();
    let command = [
        "--on-publish",
        "echo $QERA_GENERATION >> told; echo printed",
    ];
    assert_eq!(daemon.run(&once_with(&[])).code, 0);
    let second = daemon.run(&once_with(&command));
    assert!(second.log.contains("nothing new"), "{}", second.log);
    assert_eq!(told(), "1\n");
    let printed = "--on-publish for generation 1 printed: printed";
    assert!(second.log.contains(printed), "{}", second.log);
    let third = daemon.run(&once_with(&command));
    assert_eq!(third.code, 0);
    assert_eq!(told(), "1\n", "it was told before");
}

/// Rows for q and k alone; nothing for down.
fn feed_only_q(daemon: &TestDaemon) {
    let rows = TensorToWrite::f32(Q, &[300, 8], &sine_values(2400, 0.0));
    rename_in(daemon, "q", &[rows]);
}

/// A method without statistics has converged when it is solved; starved layers are waited for on
/// demand.
#[test]
fn starved_layers_are_waited_for_on_demand() {
    let method = ["--until-converged", "--method", "zeroquant-v2"];
    let RunningDaemon { daemon, mut live } = begin_on_three_layers(&method);
    feed_only_q(&daemon);
    assert_eq!(live.end(), Some(0), "{}", live.log);
    let converged = event("all-converged").with("layers", 2).with("starved", 1);
    assert!(live.heard(&converged), "{}", live.log);

    let RunningDaemon { daemon, mut live } =
        begin_on_three_layers(&[&method[..], &["--require-all"]].concat());
    feed_only_q(&daemon);
    live.wait_for(&folded("q"));
    std::thread::sleep(Duration::from_millis(300));
    write_rows_of_both_sites(&daemon, "both", 1.0);
    assert_eq!(live.end(), Some(0), "{}", live.log);
    let converged = event("all-converged").with("layers", 3);
    assert!(live.heard(&converged), "{}", live.log);
    assert_eq!(daemon.adapter("qera-out").layer(DOWN)["converged"], true);
}

/// What people read of a run: one line an event, in words.
#[test]
fn a_live_run_is_told_in_text() {
    let method = ["--until-converged", "--method", "zeroquant-v2"];
    let daemon = daemon_without_shards(BINARY);
    feed_only_q(&daemon);
    let mut live = Live::start_in_text(daemon.command(&live_with(&method)));
    assert_eq!(live.end(), Some(0), "{}", live.log);
    for said in [
        "watching activations",
        "folded q.safetensors: 300 rows",
        "published generation 1: ",
        "(2 layers corrected, 1 starved, adapter rank 2; 1 shards folded, 0 quarantined)",
        "all 2 layers that have rows have converged; 1 are starved and stay without correction",
    ] {
        let is_there = live.log.lines().any(|line| line.contains(said));
        assert!(is_there, "'{said}' is not in:\n{}", live.log);
    }
}

/// The first signal before the first shard: nothing was asked for, nothing is published, and that
/// is no failure.
#[test]
fn nothing_came() {
    let RunningDaemon { daemon, mut live } = begin_on_three_layers(&[]);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert!(!daemon.path().join("qera-out/current").exists());
}

/// A layer that cannot be solved ends the run by name, however many threads wait for each other.
#[test]
fn a_layer_that_cannot_be_solved_ends_the_run() {
    for threads in ["1", "2", "3", "8"] {
        let long = ["--idle-publish", "90", "--rescan-interval", "90"];
        let long = [&["--threads", threads], &long[..]].concat();
        for options in [once_with(&long), live_with(&long)] {
            let daemon = daemon_with_shards(BINARY);
            let mut weight = sine_values(48, 0.0);
            weight[5] = f32::NAN;
            write_checkpoint(&daemon.path().join("checkpoint"), &weight);
            let mut live = Live::start(daemon.command(&options));
            assert_eq!(live.end(), Some(1), "{}", live.log);
            let failed =
                event("failed").containing("message", "q_proj.weight': NaN at row 0, column 5");
            assert!(live.heard(&failed), "{}", live.log);
        }
    }
}
