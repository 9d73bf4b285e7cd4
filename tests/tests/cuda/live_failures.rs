//! A device that fails while a daemon runs live: the run goes on, and every row counts once.

use core::sync::atomic::{AtomicUsize, Ordering};

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::event::{folded, published};
use qera_tests::live::Live;
use qera_tests::three_layers::{
    daemon_without_shards, live_with, once_with, write_rows_of_both_sites,
};
use qera_tests::tier;

use super::BINARY;
use super::settled::assert_same_statistics;
use super::stand_in::{
    Counts, StandIn, calls_to_open, counts_of, failing, side_by_side, tells_who_moved,
};

const SHARDS: usize = 4;

/// Starts a live run, beside the stand-in or on the host alone.
fn begin(daemon: &TestDaemon, standing: Option<StandIn>, consume: &str) -> Live {
    let device = if standing.is_some() { "cuda" } else { "cpu" };
    let more = ["--idle-publish", "0.2", "--consume", consume];
    let options = [&more[..], &["--device", device]].concat();
    let mut command = daemon.command(&live_with(&options));
    if let Some(standing) = standing {
        standing.beside(&mut command, &counts_of(daemon));
    }
    Live::start(command)
}

/// Shards arrive one by one, each after the one before was folded.
fn shards_arrive(daemon: &TestDaemon, live: &mut Live, shards: core::ops::Range<usize>) {
    for shard in shards {
        let name = format!("shard-{shard}");
        write_rows_of_both_sites(daemon, &name, shard as f32);
        live.wait_for(&folded(&name));
    }
}

/// The rest of a run until all shards are published; it ends well. Returns its log.
fn ends_well(daemon: &TestDaemon, mut live: Live, shards: core::ops::Range<usize>) -> String {
    shards_arrive(daemon, &mut live, shards);
    live.wait_for(&published(SHARDS));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    core::mem::take(&mut live.log)
}

/// What every shard once has given on the host, which nothing disturbed.
fn undisturbed() -> TestDaemon {
    let daemon = daemon_without_shards(BINARY);
    let live = begin(&daemon, None, "keep");
    ends_well(&daemon, live, 0..SHARDS);
    daemon
}

/// Asserts that a state holds every shard once: by its statistics, and because nothing is left to
/// fold where the files are there.
fn assert_every_shard_once(found: &TestDaemon, host: &TestDaemon, what: &str) {
    let [a, b] = [found, host].map(|of| of.path().join("qera-out/state"));
    assert_same_statistics(&a, &b, what);
    let kept = std::fs::read_dir(found.watched()).unwrap().next().is_some();
    if kept {
        let again = found.run(&once_with(&["--device", "cpu"]));
        expect(&again, 0, &["nothing new", "4 shards"]);
    }
}

/// Whatever call fails after the device was opened, and however. Every other run deletes the shards
/// whose rows a snapshot holds, so that these are nowhere else.
#[test]
fn whatever_call_fails_a_live_run_goes_on() {
    let host = undisturbed();
    let opened = calls_to_open();
    let whole = daemon_without_shards(BINARY);
    let live = begin(&whole, Some(StandIn::default()), "keep");
    let log = ends_well(&whole, live, 0..SHARDS);
    assert!(!tells_who_moved(&log), "{log}");
    assert_every_shard_once(&whole, &host, "undisturbed");
    let calls = Counts::read(&whole).calls;
    assert!(calls > opened + 100, "{opened} to open, {calls} in all");
    let moved = AtomicUsize::new(0);
    let failing = failing(opened + 1..=calls);
    let numbered: Vec<_> = failing.iter().enumerate().collect();
    side_by_side(&numbered, |(number, standing)| {
        let there = daemon_without_shards(BINARY);
        let consume = ["keep", "delete"][number % 2];
        let live = begin(&there, Some(**standing), consume);
        let log = ends_well(&there, live, 0..SHARDS);
        moved.fetch_add(usize::from(tells_who_moved(&log)), Ordering::Relaxed);
        assert_every_shard_once(&there, &host, &format!("{standing:?}, {consume}"));
    });
    let (moved, runs) = (moved.into_inner(), numbered.len());
    eprintln!("{opened} to open, {calls} in all, {runs} runs, {moved} moved");
    assert!(2 * moved > runs, "{moved} of {runs} moved");
}

/// A process that is killed after its device failed, before it has saved what the host summed: the
/// next one, beside a device that works, has every shard once.
#[test]
fn a_kill_after_the_failure_loses_no_row() {
    let host = undisturbed();
    let opened = calls_to_open();
    let calls: Vec<u64> = (2..60).step_by(tier::cases(13, 1)).collect();
    side_by_side(&calls, |call| {
        let there = daemon_without_shards(BINARY);
        let fails_at = opened + call;
        let standing = StandIn {
            seed: *call,
            fails_at,
            ..StandIn::default()
        };
        let mut killed = begin(&there, Some(standing), "keep");
        shards_arrive(&there, &mut killed, 0..2);
        killed.kill();
        let seed = call + 1;
        let standing = StandIn {
            seed,
            ..StandIn::default()
        };
        let live = begin(&there, Some(standing), "keep");
        let log = ends_well(&there, live, 2..SHARDS);
        assert!(!tells_who_moved(&log), "{log}");
        assert_every_shard_once(&there, &host, &format!("call {fails_at}, killed"));
    });
}
