//! How a daemon is run beside the stand-in, and what that says at its end.

use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::path::{Path, PathBuf};
use std::process::Command;

use qera_tests::daemon::{EndedRun, TestDaemon, expect, run_to_end};
use qera_tests::three_layers::{daemon_with_shards, once_with};
use qera_tests::tier;

use super::BINARY;

/// What the log says where a device failed.
const MOVED: &str = "the CUDA device failed, the CPU goes on";
/// The folder with the stand-in's libraries.
const FOLDER: &str = "QERA_STANDIN";

/// Runs side by side: they wait more than they compute.
const RUNS: usize = 4;
/// What is made and freed.
const MADE: [&str; 7] = [
    "allocations",
    "pinned",
    "streams",
    "events",
    "modules",
    "contexts",
    "handles",
];

/// How the stand-in is to behave.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StandIn {
    /// What the order of its streams is drawn from.
    pub(crate) seed: u64,
    /// The call that fails; 0: none.
    pub(crate) fails_at: u64,
    /// In which way.
    pub(crate) failing: Failing,
    /// The devices, as `ci/cuda/standin/machine.h` calls them; one good one where nothing is said.
    pub(crate) devices: &'static str,
}

/// How a device fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Failing {
    /// It is lost: all later calls fail, too.
    #[default]
    Lost,
    /// It was stopped for taking too long: likewise.
    TimedOut,
    /// One call fails, and later ones would not.
    Once,
    /// The first allocation from that call on finds no room, and later ones do.
    Memory,
    /// No allocation from that call on finds room.
    Full,
}

/// All but being lost.
pub(crate) const OTHERS: [Failing; 4] = [
    Failing::Memory,
    Failing::TimedOut,
    Failing::Full,
    Failing::Once,
];

impl Failing {
    const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::TimedOut => "timeout",
            Self::Once => "once",
            Self::Memory => "memory",
            Self::Full => "full",
        }
    }
}

/// What is left when the process ends.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Calls that may fail.
    pub(crate) calls: u64,
    /// What was made and not freed: memory, streams, handles.
    pub(crate) left: u64,
    /// The most bytes of device memory at one time.
    pub(crate) most: u64,
}

impl StandIn {
    /// Makes a command find the stand-in.
    pub(crate) fn beside(self, command: &mut Command, counts: &Path) {
        let folder = std::env::var(FOLDER).unwrap();
        command.env("LD_LIBRARY_PATH", folder);
        command.env("QERA_STANDIN_SEED", self.seed.to_string());
        command.env("QERA_STANDIN_LEAKS", counts);
        command.env("QERA_STANDIN_DEVICES", self.devices);
        if self.fails_at > 0 {
            let kind = self.failing.name();
            command.env("QERA_STANDIN_FAIL", format!("{}:{kind}", self.fails_at));
        }
    }

    /// One that fails at this call.
    pub(crate) const fn failing_at(fails_at: u64, failing: Failing) -> Self {
        Self {
            seed: fails_at,
            fails_at,
            failing,
            devices: "",
        }
    }

    /// These devices.
    pub(crate) fn of(devices: &'static str) -> Self {
        Self {
            devices,
            ..Self::default()
        }
    }

    /// Runs to the end.
    pub(crate) fn run(self, daemon: &TestDaemon, options: &[String]) -> EndedRun {
        let mut command = daemon.command(options);
        self.beside(&mut command, &counts_of(daemon));
        run_to_end(command)
    }
}

/// Devices that fail at these calls: in the long form each call once as lost, and once in one of
/// the other ways; in the short one every tenth call, in one way or another.
pub(crate) fn failing(calls: RangeInclusive<u64>) -> Vec<StandIn> {
    let step = tier::cases(20, 1);
    let lost = calls.clone().step_by(step);
    let lost = lost.map(|call| StandIn::failing_at(call, Failing::Lost));
    let others = calls.skip(step / 2).step_by(step);
    let others = others.zip(OTHERS.into_iter().cycle());
    let others = others.map(|(call, failing)| StandIn::failing_at(call, failing));
    lost.chain(others).collect()
}

/// Runs `check` for each case, some at a time.
pub(crate) fn side_by_side<T: Sync>(cases: &[T], check: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..RUNS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check(case);
                }
            });
        }
    });
}

/// Asserts that every failure that a log tells of is told of an input by name; returns whether
/// there is one.
pub(crate) fn tells_who_moved(log: &str) -> bool {
    who_moved(log) > 0
}

/// The same; how many are told.
pub(crate) fn who_moved(log: &str) -> usize {
    let told = log.lines().filter(|line| line.contains(MOVED));
    let named = |line: &str| assert!(line.contains("model.layers."), "{line}");
    told.inspect(|line| named(line)).count()
}

/// Calls after which the device is opened and trusted: where one of them fails, a run that named
/// the device is refused.
pub(crate) fn calls_to_open() -> u64 {
    let daemon = daemon_with_shards(BINARY);
    let planned: Vec<String> = once_with(&["--device", "cuda", "plan"])
        .into_iter()
        .map(Into::into)
        .collect();
    let refused = |fails_at| {
        let standing = StandIn {
            fails_at,
            ..StandIn::default()
        };
        standing.run(&daemon, &planned).code == 2
    };
    expect(&StandIn::default().run(&daemon, &planned), 0, &[]);
    let (mut opening, mut open) = (1, Counts::read(&daemon).calls);
    assert!(refused(opening) && !refused(open), "{open} calls");
    while opening + 1 < open {
        let middle = opening.midpoint(open);
        if refused(middle) {
            opening = middle;
        } else {
            open = middle;
        }
    }
    opening
}

/// Where the stand-in writes its counts.
pub(crate) fn counts_of(daemon: &TestDaemon) -> PathBuf {
    daemon.path().join("stand-in")
}

impl Counts {
    /// Of the last run.
    pub(crate) fn read(daemon: &TestDaemon) -> Self {
        Self::of(&counts_of(daemon))
    }

    /// That a run wrote to a file.
    pub(crate) fn of(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        let number = |key: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_else(|| panic!("no {key} in {text}"))
                .parse()
                .unwrap()
        };
        Self {
            calls: number("calls="),
            left: MADE.iter().map(|what| number(&format!("{what}="))).sum(),
            most: number("most="),
        }
    }
}
