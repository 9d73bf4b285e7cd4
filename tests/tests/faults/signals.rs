//! Signals at any time, to a live run that consumes its shards.

use core::time::Duration;

use qera_core::pseudo_random::SplitMix64;
use qera_tests::daemon::TestDaemon;
use qera_tests::live::Live;
use qera_tests::three_layers::{daemon_without_shards, write_rows_of_both_sites};

use crate::drawn::Scenario;
use crate::tally::{Tally, runs_asked};
use crate::{BINARY, ROWS, options, run};

/// The signals that are sent; `STOP` is followed by `CONT` and `TERM`.
const SIGNALS: [&str; 6] = ["KILL", "KILL", "TERM", "INT", "HUP", "STOP"];
/// Rounds on one folder: a live run, a shard that arrives before or within it, a signal.
const ROUNDS: usize = 12;

#[test]
fn signals_at_any_time_lose_nothing() {
    let mut tally = Tally::before("signals");
    let first = tally.cases;
    for number in first..first + runs_asked().div_ceil(12) {
        tally.cases += 1;
        let mut sequence = SplitMix64::new(SplitMix64::new(number).next_bits());
        let mut below = |end: usize| usize::try_from(sequence.next_bits() >> 1).unwrap() % end;
        let scenario = Scenario::of(below(12) as u64);
        let daemon = daemon_without_shards(BINARY);
        for shard in 0..ROUNDS {
            let early = below(2) == 0;
            let arrive =
                || write_rows_of_both_sites(&daemon, &format!("s{shard:02}"), shard as f32);
            early.then(arrive);
            let more = options(&daemon, scenario).into_iter();
            let more: Vec<_> = more
                .chain(["--idle-publish".into(), "0.1".into()])
                .collect();
            let mut live = Live::start_in_text(daemon.command(&more));
            pause(below(60));
            (!early).then(arrive);
            pause(below(60));
            end(&mut live, SIGNALS[below(SIGNALS.len())], &mut tally);
        }
        check(&daemon, scenario, &mut tally, number);
        tally.keep();
    }
    tally.say();
    assert!(tally.is_sound(), "{tally:?}");
}

fn pause(milliseconds: usize) {
    std::thread::sleep(Duration::from_millis(milliseconds as u64));
}

fn end(live: &mut Live, signal: &str, tally: &mut Tally) {
    live.send(signal);
    if signal == "STOP" {
        pause(5);
        live.send("CONT");
        live.send("TERM");
    }
    tally.runs += 1;
    match live.end() {
        None => tally.kills += 1, // Or ended by a signal that came before it was listened for.
        Some(0) => {}
        code => panic!("{signal}: {code:?}\n{}", live.log),
    }
}

/// Checks that a run to the end has counted every shard once.
fn check(daemon: &TestDaemon, scenario: Scenario, tally: &mut Tally, number: u64) {
    let ended = run(daemon, scenario);
    assert_eq!(ended.code, 0, "{number}: {}", ended.log);
    let manifest = daemon.manifest("qera-out");
    let shards = manifest["inputs"]["shards"].as_u64().unwrap();
    tally.compare(shards, ROUNDS as u64);
    for layer in manifest["layers"].as_array().unwrap() {
        tally.compare(layer["rows"].as_u64().unwrap(), (ROUNDS * ROWS) as u64);
    }
    assert!(tally.is_sound(), "signals {number}: {manifest}");
    let verdict = daemon.verify(&[]);
    assert_eq!(verdict.code, 0, "{number}: {}", verdict.output);
}
