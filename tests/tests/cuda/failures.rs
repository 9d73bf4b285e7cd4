//! A device that fails at any call: the host goes on, with every row.

use core::sync::atomic::{AtomicUsize, Ordering};

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::three_layers::{daemon_with_shards, once_with, write_rows_of_both_sites};

use super::BINARY;
use super::settled::assert_same_statistics;
use super::stand_in::{Counts, Failing, StandIn, calls_to_open, failing, side_by_side, who_moved};

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
/// trusted, the run that named it is refused. An answer to one call moves one input, and the others
/// are computed there on; a device that is lost is told of by the status.
#[test]
fn whatever_call_fails_the_host_goes_on() {
    let host = daemon_with_shards(BINARY);
    expect(&host.run(&options(&["--device", "cpu"])), 0, &[]);
    let whole = daemon_with_shards(BINARY);
    let on_device = options(&["--device", "cuda", "--threads", "1"]);
    expect(&StandIn::default().run(&whole, &on_device), 0, &[]);
    let (opened, calls) = (calls_to_open(), Counts::read(&whole).calls);
    assert!(calls > opened + 100, "{opened} to open, {calls} calls");
    let [refused, moved, alone] = [const { AtomicUsize::new(0) }; 3];
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
        let who = who_moved(&run.log);
        moved.fetch_add(usize::from(who > 0), Ordering::Relaxed);
        let is_lost = there.status()["device"]["lost"].is_string();
        match standing.failing {
            Failing::Lost | Failing::TimedOut => assert!(is_lost || who == 0, "{}", run.log),
            Failing::Memory | Failing::Full => assert!(!is_lost, "{}", run.log),
            Failing::Once if is_lost => {}
            Failing::Once => {
                assert!(who < 2, "{}", run.log);
                assert!(there.manifest("qera-out")["device"].is_object());
                alone.fetch_add(who, Ordering::Relaxed);
            }
        }
        assert_eq!(shards_of(&there), 4, "{standing:?}");
        let [a, b] = [&there, &host].map(|of| of.path().join("qera-out/state"));
        assert_same_statistics(&a, &b, &format!("{standing:?}"));
        // Nothing is left to fold: no shard counts twice when the state is continued.
        let again = there.run(&options(&["--device", "cpu"]));
        expect(&again, 0, &["nothing new", "4 shards"]);
    });
    let [refused, moved, alone] = [refused, moved, alone].map(AtomicUsize::into_inner);
    let found = format!("{refused} refused, {moved} moved, {alone} of them alone");
    eprintln!("{opened} to open, {calls} calls, {found}");
    assert!(refused > 0 && moved > 0 && alone > 0, "{found}");
}

/// A device that is lost is shown by `status`, with the call.
#[test]
fn status_tells_of_a_lost_device() {
    let daemon = daemon_with_shards(BINARY);
    let on_device = options(&["--device", "cuda"]);
    let shown = || daemon.run(&options(&["status"]));
    expect(&StandIn::default().run(&daemon, &on_device), 0, &[]);
    let said = "computing on CPU stand-in (2048 MiB, compute capability 9.0) beside the CPU";
    assert!(shown().output.contains(said), "{}", shown().output);
    write_rows_of_both_sites(&daemon, "shard-4", 4.0);
    let standing = StandIn {
        fails_at: calls_to_open() + 30,
        ..StandIn::default()
    };
    expect(&standing.run(&daemon, &on_device), 0, &["5 shards"]);
    let said = "was lost, the CPU goes on alone: cu";
    assert!(shown().output.contains(said), "{}", shown().output);
    assert!(shown().output.contains("(CUDA_ERROR_LAUNCH_FAILED)"));
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
