//! A device that fails at any call: the host goes on, with every row.

use core::sync::atomic::{AtomicUsize, Ordering};

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::three_layers::{daemon_with_shards, once_with};

use super::BINARY;
use super::settled::assert_same_statistics;
use super::stand_in::{Counts, StandIn, calls_to_open, failing, side_by_side, tells_who_moved};

/// One run on three layers, `--once`; two of four shards first, so that a state is continued.
fn options(more: &[&str]) -> Vec<String> {
    let options = once_with(more);
    options.into_iter().map(Into::into).collect()
}

fn shards_of(daemon: &TestDaemon) -> u64 {
    daemon.manifest("qera-out")["inputs"]["shards"]
        .as_u64()
        .unwrap()
}

/// Whatever call fails, and however: the run ends well, no shard is lost or doubled, the statistics
/// are the host's, and the input is told that moved; or, where the device fails before it is
/// trusted, the run that named it is refused.
#[test]
fn whatever_call_fails_the_host_goes_on() {
    let host = daemon_with_shards(BINARY);
    expect(&host.run(&options(&["--device", "cpu"])), 0, &[]);
    let whole = daemon_with_shards(BINARY);
    let on_device = options(&["--device", "cuda", "--threads", "1"]);
    expect(&StandIn::default().run(&whole, &on_device), 0, &[]);
    let (opened, calls) = (calls_to_open(), Counts::read(&whole).calls);
    assert!(calls > opened + 100, "{opened} to open, {calls} calls");
    let [refused, moved] = [const { AtomicUsize::new(0) }; 2];
    side_by_side(&failing(1..=calls), |standing| {
        let there = daemon_with_shards(BINARY);
        let run = standing.run(&there, &on_device);
        if run.code == 2 {
            expect(&run, 2, &["--device cuda:0: cannot be used: "]);
            refused.fetch_add(1, Ordering::Relaxed);
            // It comes before anything is begun.
            assert!(standing.fails_at <= opened, "{standing:?}");
            assert!(!there.path().join("qera-out/state").exists());
            return;
        }
        expect(&run, 0, &["4 shards folded"]);
        moved.fetch_add(usize::from(tells_who_moved(&run.log)), Ordering::Relaxed);
        assert_eq!(shards_of(&there), 4, "{standing:?}");
        let [a, b] = [&there, &host].map(|of| of.path().join("qera-out/state"));
        assert_same_statistics(&a, &b, &format!("{standing:?}"));
        // Nothing is left to fold: no shard counts twice when the state is continued.
        let again = there.run(&options(&["--device", "cpu"]));
        expect(&again, 0, &["nothing new", "4 shards"]);
    });
    let [refused, moved] = [refused, moved].map(AtomicUsize::into_inner);
    eprintln!("{opened} to open, {calls} calls, {refused} refused, {moved} moved");
    assert!(refused > 0 && moved > 0, "{refused} refused, {moved} moved");
}

/// `auto` goes on without a device that fails its self-test, and says why.
#[test]
fn auto_does_without_a_device_that_fails() {
    let daemon = daemon_with_shards(BINARY);
    let standing = StandIn {
        fails_at: 1,
        ..StandIn::default()
    };
    let run = standing.run(&daemon, &options(&["--device", "auto"]));
    expect(&run, 0, &["computing on the CPU by", "4 shards folded"]);
}
