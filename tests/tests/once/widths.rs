//! What headers claim of widths, where no checkpoint says them: no sum wraps, nothing is divided by
//! nothing, and one such shard is set aside alone.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::event::{event, folded, quarantined};
use qera_tests::live::Live;
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::{rename_in, shard_path, sine_values};

use super::BINARY;

/// A shard without a byte of data, and the message that follows.
struct WideShard {
    name: &'static str,
    shape: &'static [usize],
    said: &'static str,
}

const WIDE: [WideShard; 7] = [
    wide(
        "x-62",
        &[0, 1 << 62],
        "rows of 4611686018427387904 numbers, at most 16777216",
    ),
    wide(
        "x-3d",
        &[0, 3, 1 << 62],
        "rows of 4611686018427387904 numbers",
    ),
    wide(
        "x-63",
        &[0, usize::MAX],
        "rows of 18446744073709551615 numbers",
    ),
    wide("x-25", &[0, (1 << 24) + 1], "rows of 16777217 numbers"),
    wide("x-24", &[0, 1 << 24], "of memory"),
    wide("x-20", &[0, 1 << 20], "of memory"),
    wide("x-none", &[4, 0], "rows of 0 numbers"),
];

const fn wide(name: &'static str, shape: &'static [usize], said: &'static str) -> WideShard {
    WideShard { name, shape, said }
}

const GATHER: [&str; 6] = [
    "--watch",
    "activations",
    "--state",
    "gathered",
    "--memory-budget",
    "1GiB",
];

fn good(phase: f32) -> [TensorToWrite; 1] {
    [TensorToWrite::f32("l", &[4, 8], &sine_values(32, phase))]
}

fn write_wide(daemon: &TestDaemon) {
    for WideShard { name, shape, .. } in WIDE {
        let tensor = TensorToWrite::f32("w", shape, &[]);
        rename_in(daemon, name, &[tensor]);
    }
}

#[test]
fn shards_of_impossible_widths_are_set_aside_alone() {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    write_wide(&daemon);
    write_safetensors(&shard_path(&daemon, "y"), &good(0.0), &[]);
    let plan = daemon.run(&[&["plan", "--once"], &GATHER[..]].concat());
    expect(&plan, 0, &["x-62", "x-20", "x-none"]);
    assert!(plan.output.contains("1 shards"), "{}", plan.output);
    let once = [&["--once"], &GATHER[..]].concat();
    // The second start is on a state.
    for _ in 0..2 {
        let run = daemon.run(&once);
        expect(&run, 3, &["the statistics of 1 shards"]);
        for WideShard { name, said, .. } in WIDE {
            let quarantined = run.log.lines().find(|line| line.contains(name));
            assert!(quarantined.unwrap().contains(said), "{name}: {}", run.log);
        }
    }
}

#[test]
fn a_live_run_goes_on_and_so_does_each_later_start() {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    for start in 0..2 {
        let live = [&GATHER[..], &["--rescan-interval", "0.2"]].concat();
        let mut live = Live::start(daemon.command(&live));
        live.wait_for(&event("watching"));
        let name = format!("good-{start}");
        rename_in(&daemon, &name, &good(start as f32));
        live.wait_for(&folded(&name));
        write_wide(&daemon);
        for WideShard { name, said, .. } in WIDE {
            let quarantined = quarantined(name).containing("message", said);
            if !live.heard(&quarantined) {
                live.wait_for(&quarantined);
            }
        }
        assert_eq!(live.stop(), Some(0), "{}", live.log);
    }
    for WideShard { name, .. } in WIDE {
        fs::remove_file(shard_path(&daemon, name)).unwrap();
    }
    let once = [&["--once"], &GATHER[..]].concat();
    expect(&daemon.run(&once), 0, &["the statistics of 2 shards"]);
}
