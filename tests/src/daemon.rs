//! Running the daemon as a process in a folder of its own.
#![allow(clippy::unwrap_used, reason = "tests only")]

use core::time::Duration;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::adapter::Adapter;
use crate::disk_shim::{DiskShim, FailingCalls};

/// Nothing that a test waits for takes longer.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A folder that is removed with the value, and the binary to run in it.
#[derive(Debug)]
pub struct TestDaemon {
    /// The folder.
    pub folder: tempfile::TempDir,
    binary: PathBuf,
}

/// How a run ended.
#[derive(Debug)]
pub struct EndedRun {
    /// Exit code; -1 when a signal ended the process.
    pub code: i32,
    /// Standard error.
    pub log: String,
    /// Standard output.
    pub output: String,
}

impl TestDaemon {
    /// A fresh folder; `binary` is `env!("CARGO_BIN_EXE_qera-daemon-under-test")`.
    ///
    /// # Panics
    /// When no temporary folder can be made.
    #[must_use]
    pub fn new(binary: &str) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            binary: binary.into(),
        }
    }

    /// A fresh folder with an empty `activations` in it.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn with_watched_folder(binary: &str) -> Self {
        let daemon = Self::new(binary);
        std::fs::create_dir(daemon.watched()).unwrap();
        daemon
    }

    /// The folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `activations` in it.
    #[must_use]
    pub fn watched(&self) -> PathBuf {
        self.path().join("activations")
    }

    /// A command in the folder, for tests that need more than [`run`](Self::run).
    #[must_use]
    pub fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(self.path()).args(arguments);
        command
    }

    /// Runs to the end.
    ///
    /// # Panics
    /// When the process cannot be started.
    #[must_use]
    pub fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> EndedRun {
        run_to_end(self.command(arguments))
    }

    /// Runs to the end beside a disk of which some calls fail.
    ///
    /// # Panics
    /// When the process cannot be started.
    #[must_use]
    pub fn run_failing<A: AsRef<OsStr>>(
        &self,
        arguments: &[A],
        shim: &DiskShim,
        failing: FailingCalls<'_>,
    ) -> EndedRun {
        let mut command = self.command(arguments);
        shim.fail(&mut command, failing);
        run_to_end(command)
    }

    /// What `status --json` says of `qera-out`; null where there is no status yet.
    #[must_use]
    pub fn status(&self) -> Value {
        let status = self.run(&["status", "--json"]);
        serde_json::from_str(&status.output).unwrap_or_default()
    }

    /// Waits until so many shards are folded, solved, published and saved; returns the status then.
    ///
    /// # Panics
    /// When it takes too long.
    pub fn wait_until_idle(&self, shards: usize) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if status["phase"] == "idle" && status["shards"] == shards {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{shards} shards do not settle: {status}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The adapter that `OUT/current` names.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn adapter(&self, out: &str) -> Adapter {
        Adapter::load(&self.path().join(out).join("current"))
    }

    /// Holds the current generation of `qera-out` against its base, or what else is asked.
    #[must_use]
    pub fn verify(&self, more: &[&str]) -> EndedRun {
        let options = ["verify", "--adapter", "qera-out/current"];
        self.run(&[&options[..], more].concat())
    }

    /// The manifest of the current generation of an output folder, whatever its form.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn manifest(&self, out: &str) -> Value {
        let path = self.path().join(out).join("current/qera_manifest.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }
}

/// Runs a command to its end.
///
/// # Panics
/// When the process cannot be started.
#[must_use]
pub fn run_to_end(mut command: Command) -> EndedRun {
    let output = command.output().unwrap();
    EndedRun {
        code: output.status.code().unwrap_or(-1),
        log: String::from_utf8_lossy(&output.stderr).into_owned(),
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
    }
}

/// Asserts how a run ended and what it said.
///
/// # Panics
/// With the whole log, when the code differs or a phrase is missing.
pub fn expect(run: &EndedRun, code: i32, said: &[&str]) {
    assert_eq!(run.code, code, "{}", run.log);
    for words in said {
        assert!(run.log.contains(words), "'{words}' is not in:\n{}", run.log);
    }
}

/// Asserts how `verify` ended and what it printed.
///
/// # Panics
/// With all of it, when the code differs or a phrase is missing.
pub fn expect_verdict(run: &EndedRun, code: i32, said: &[&str]) {
    assert_eq!(run.code, code, "{}{}", run.output, run.log);
    for words in said {
        let is_said = run.output.contains(words);
        assert!(is_said, "'{words}' is not in:\n{}", run.output);
    }
}
