//! The daemon as a process beside a disk that fails at any one call, and under signals at any time:
//! afterwards a run without faults has every row once.
//!
//! A fault is a function of a number. `cargo test` takes a few; `./ci.sh crash` says how many by
//! `QERA_CRASH`, and `QERA_CRASH_LEDGER` names a file of what was run, from which it goes on.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod drawn;
mod signals;
mod soak;
mod tally;

use std::collections::BTreeMap;
use std::fs;
use std::sync::LazyLock;

use qera_tests::adapter::Adapter;
use qera_tests::daemon::{EndedRun, TestDaemon, run_to_end};
use qera_tests::disk_shim::{Action, CallCount, DiskShim};
use qera_tests::output_folder::{SnapshotFile, statistics_files};
use qera_tests::three_layers::{
    daemon_with_shards, daemon_without_shards, write_rows_of_both_sites,
};

use drawn::{DrawnFault, Scenario};
use tally::{Tally, runs_asked};

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
/// Shards of a scenario, and their rows.
const SHARDS: usize = 4;
const ROWS: usize = 300;

/// A scenario without a fault: how many calls of each kind its last run makes, and what it leaves.
struct Undisturbed {
    calls: Vec<CallCount>,
    end: End,
}

/// What a run left behind.
struct End {
    adapter: Adapter,
    statistics: Vec<SnapshotFile>,
}

static SHIM: LazyLock<DiskShim> = LazyLock::new(DiskShim::build);

/// A folder in which the run of a scenario may begin.
fn begun(scenario: Scenario) -> TestDaemon {
    if !scenario.continues {
        return daemon_with_shards(BINARY);
    }
    let daemon = daemon_without_shards(BINARY);
    let arrive = |shards: core::ops::Range<usize>| {
        for shard in shards {
            write_rows_of_both_sites(&daemon, &format!("shard-{shard}"), shard as f32);
        }
    };
    arrive(0..SHARDS / 2);
    assert_eq!(run(&daemon, scenario).code, 0);
    arrive(SHARDS / 2..SHARDS);
    daemon
}

/// The options of a run, all paths absolute: the shim knows the folder's calls by them.
fn options(daemon: &TestDaemon, scenario: Scenario) -> Vec<String> {
    let path = |name: &str| daemon.path().join(name).display().to_string();
    let mut options: Vec<String> = Vec::new();
    for (option, value) in [
        ("--watch", path("activations")),
        ("--checkpoint", path("checkpoint")),
        ("--out", path("qera-out")),
        ("--rank", "2".into()),
        ("--block-size", "4".into()),
        ("--consume", scenario.consume.into()),
        ("--keep-generations", "3".into()),
        ("--rounding", scenario.rounding.into()),
    ] {
        options.extend([option.to_owned(), value]);
    }
    options
}

fn run(daemon: &TestDaemon, scenario: Scenario) -> EndedRun {
    let options = [vec!["--once".into()], options(daemon, scenario)].concat();
    daemon.run(&options)
}

impl Undisturbed {
    fn of(scenario: Scenario) -> Self {
        let daemon = begun(scenario);
        let options = [vec!["--once".into()], options(&daemon, scenario)].concat();
        let mut command = daemon.command(&options);
        SHIM.count(&mut command, &daemon.path().display().to_string());
        let ended = run_to_end(command);
        assert_eq!(ended.code, 0, "{}", ended.log);
        Self {
            calls: SHIM.counts(),
            end: End::of(&daemon),
        }
    }
}

impl End {
    fn of(daemon: &TestDaemon) -> Self {
        Self {
            adapter: daemon.adapter("qera-out"),
            statistics: statistics_files(&daemon.path().join("qera-out/state")),
        }
    }
}

/// Every row once, in an adapter that `verify` has nothing to say against; for the same order of
/// shards the same bytes, where W~ does not go by how many had come.
fn check(
    daemon: &TestDaemon,
    scenario: Scenario,
    undisturbed: &End,
    tally: &mut Tally,
) -> Result<(), String> {
    let end = End::of(daemon);
    let inputs = &end.adapter.manifest["inputs"];
    let shards = inputs["shards"].as_u64().unwrap();
    tally.compare(shards, SHARDS as u64);
    let mut wrong = Vec::new();
    if shards != SHARDS as u64 {
        wrong.push(format!("{shards} shards"));
    }
    for layer in end.adapter.layers() {
        let rows = layer["rows"].as_u64().unwrap();
        tally.compare(rows, (SHARDS * ROWS) as u64);
        if rows != (SHARDS * ROWS) as u64 {
            wrong.push(format!("{rows} rows: {layer}"));
        }
    }
    let digest = |end: &End| end.adapter.manifest["inputs"]["journal_digest"].clone();
    if digest(&end) == digest(undisturbed) {
        let is_same = end.adapter.bytes == undisturbed.adapter.bytes;
        if scenario.rounding == "nearest" && !is_same {
            wrong.push("another adapter".into());
        }
        if end.statistics != undisturbed.statistics {
            wrong.push("other statistics".into());
        }
    }
    let verdict = daemon.verify(&[]);
    if verdict.code != 0 {
        wrong.push(verdict.output);
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("; "))
    }
}

/// Compares a run that meets a fault with one that does not.
fn try_fault(number: u64, undisturbed: &Undisturbed, tally: &mut Tally) -> Result<(), String> {
    let drawn = DrawnFault::new(number, &undisturbed.calls);
    let daemon = begun(drawn.scenario);
    let folder = daemon.path().display().to_string();
    let options = [vec!["--once".into()], options(&daemon, drawn.scenario)].concat();
    let mut command = daemon.command(&options);
    SHIM.fault(&mut command, drawn.fault(&folder));
    let faulty = run_to_end(command);
    tally.runs += 2;
    match (drawn.action, faulty.code) {
        (Action::Kill | Action::Cut, -1) => tally.kills += 1,
        (Action::Kill | Action::Cut, 0) => {} // The call never came.
        (_, 0 | 1 | 3 | 4) => tally.faults += 1,
        (_, code) => return Err(format!("{drawn:?} ends with {code}: {}", faulty.log)),
    }
    let context = |wrong: String| format!("{drawn:?}, {}: {wrong}\n{}", faulty.code, faulty.log);
    if faulty.code == 0 && fs::read_link(daemon.path().join("qera-out/current")).is_ok() {
        // Nothing is said, so nothing may be wrong.
        check(&daemon, drawn.scenario, &undisturbed.end, tally).map_err(context)?;
    }
    let again = run(&daemon, drawn.scenario);
    if again.code != 0 {
        return Err(context(format!("then {}: {}", again.code, again.log)));
    }
    check(&daemon, drawn.scenario, &undisturbed.end, tally)
        .map_err(|wrong| context(wrong + &again.log))
}

#[test]
fn one_fault_loses_nothing() {
    let mut tally = Tally::before("process");
    let first = tally.cases;
    let mut undisturbed: BTreeMap<Scenario, Undisturbed> = BTreeMap::new();
    let mut broken = Vec::new();
    for number in first..first + runs_asked() {
        let scenario = Scenario::of(number);
        let undisturbed = undisturbed
            .entry(scenario)
            .or_insert_with(|| Undisturbed::of(scenario));
        tally.cases += 1;
        match try_fault(number, undisturbed, &mut tally) {
            Err(wrong) => broken.push(format!("fault {number}: {wrong}")),
            // What is killed goes on behind these; behind one that broke it does not.
            Ok(()) if broken.is_empty() && number.is_multiple_of(20) => tally.keep(),
            Ok(()) => {}
        }
    }
    tally.say();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    tally.keep();
    assert!(tally.is_sound(), "{tally:?}");
}
