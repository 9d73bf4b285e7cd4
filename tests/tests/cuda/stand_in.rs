//! How a daemon is run beside the stand-in, and what that says at its end.

use std::path::{Path, PathBuf};
use std::process::Command;

use qera_tests::daemon::{EndedRun, TestDaemon, run_to_end};

/// The folder with the stand-in's libraries.
const FOLDER: &str = "QERA_STANDIN";

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
    /// The call that fails, and all that follow; 0: none.
    pub(crate) fails_at: u64,
}

/// What is left when the process ends.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Calls that may fail.
    pub(crate) calls: u64,
    /// What was made and not freed: memory, streams, handles.
    pub(crate) left: u64,
}

impl StandIn {
    /// Makes a command find the stand-in.
    pub(crate) fn beside(self, command: &mut Command, counts: &Path) {
        let folder = std::env::var(FOLDER).unwrap();
        command.env("LD_LIBRARY_PATH", folder);
        command.env("QERA_STANDIN_SEED", self.seed.to_string());
        command.env("QERA_STANDIN_LEAKS", counts);
        if self.fails_at > 0 {
            command.env("QERA_STANDIN_FAIL", self.fails_at.to_string());
        }
    }

    /// Runs to the end.
    pub(crate) fn run(self, daemon: &TestDaemon, options: &[String]) -> EndedRun {
        let mut command = daemon.command(options);
        self.beside(&mut command, &counts_of(daemon));
        run_to_end(command)
    }
}

/// Where the stand-in writes its counts.
pub(crate) fn counts_of(daemon: &TestDaemon) -> PathBuf {
    daemon.path().join("stand-in")
}

impl Counts {
    /// Of the last run.
    pub(crate) fn read(daemon: &TestDaemon) -> Self {
        let text = std::fs::read_to_string(counts_of(daemon)).unwrap();
        let number = |key: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_else(|| panic!("no {key} in {text}"))
                .parse()
                .unwrap()
        };
        Self {
            calls: number("calls="),
            left: MADE.iter().map(|what| number(&format!("{what}="))).sum(),
        }
    }
}
