//! A device that fails at any call: the host goes on, with every row.

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::three_layers::{daemon_with_shards, once_with};
use qera_tests::tier;

use super::BINARY;
use super::settled::assert_same_statistics;
use super::stand_in::{Counts, StandIn};

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

/// Every call number in the long form, one of ten in the short one. The run ends well, no shard is
/// lost or doubled, the statistics are the host's, and the site is told that moved; or, where the
/// device fails before it is trusted, the run that named it is refused.
#[test]
fn whatever_call_fails_the_host_goes_on() {
    let host = daemon_with_shards(BINARY);
    expect(&host.run(&options(&["--device", "cpu"])), 0, &[]);
    let whole = daemon_with_shards(BINARY);
    let on_device = options(&["--device", "cuda", "--threads", "1"]);
    expect(&StandIn::default().run(&whole, &on_device), 0, &[]);
    let calls = Counts::read(&whole).calls;
    assert!(calls > 100, "{calls} calls");
    let (mut refused, mut moved) = (0, 0);
    for fails_at in (1..=calls).step_by(tier::cases(10, 1)) {
        let there = daemon_with_shards(BINARY);
        let standing = StandIn {
            seed: fails_at,
            fails_at,
        };
        let run = standing.run(&there, &on_device);
        if run.code == 2 {
            expect(&run, 2, &["--device cuda:0: cannot be used: "]);
            refused += 1;
            // It comes before anything is begun.
            assert!(moved == 0 && !there.path().join("qera-out/state").exists());
            continue;
        }
        expect(&run, 0, &["4 shards folded"]);
        moved += usize::from(run.log.contains("the CUDA device failed, the CPU goes on"));
        assert_eq!(shards_of(&there), 4, "call {fails_at}");
        let [a, b] = [&there, &host].map(|of| of.path().join("qera-out/state"));
        assert_same_statistics(&a, &b, &format!("call {fails_at}"));
        // Nothing is left to fold: no shard counts twice when the state is continued.
        let again = there.run(&options(&["--device", "cpu"]));
        expect(&again, 0, &["nothing new", "4 shards"]);
    }
    assert!(refused > 0 && moved > 0, "{refused} refused, {moved} moved");
}

/// `auto` goes on without a device that fails its self-test, and says why.
#[test]
fn auto_does_without_a_device_that_fails() {
    let daemon = daemon_with_shards(BINARY);
    let standing = StandIn {
        seed: 0,
        fails_at: 1,
    };
    let run = standing.run(&daemon, &options(&["--device", "auto"]));
    expect(&run, 0, &["computing on the CPU by", "4 shards folded"]);
}
