//! A disk that fails on purpose, and says what is done to it: a small library before the C
//! library's calls (`disk_shim.c`).
#![allow(clippy::unwrap_used, reason = "tests only")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// EIO, EACCES and ENFILE.
pub const FAILURES: [i32; 3] = [5, 13, 23];

/// The library, compiled.
#[derive(Debug)]
pub struct DiskShim {
    folder: tempfile::TempDir,
}

/// Calls that fail.
#[derive(Debug, Clone, Copy)]
pub struct FailingCalls<'a> {
    /// `open`, `read` or `stat`.
    pub call: &'a str,
    /// What their path contains, without spaces.
    pub path: &'a str,
    /// How many fail, the first ones.
    pub count: usize,
    /// The error.
    pub errno: i32,
}

/// What becomes of the calls that a [`Fault`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The calls fail with this error.
    Fail(i32),
    /// The calls read or write less than they were asked to, as the system may.
    Shorten,
    /// The process is killed before the first of them,
    Kill,
    /// or behind it; of a write the half is done then.
    Cut,
}

/// Calls of one kind on paths that contain a text, from one of them on.
#[derive(Debug, Clone, Copy)]
pub struct Fault<'a> {
    /// The kind: `open`, `read`, `write`, `stat`, `list`, `sync`, `rename`, `unlink`, `mkdir`,
    /// `link`, `size` or `lock`.
    pub call: &'a str,
    /// What their path contains, without spaces.
    pub path: &'a str,
    /// The first of them, from 1.
    pub nth: usize,
    /// How many.
    pub times: usize,
    /// What becomes of them.
    pub action: Action,
}

/// How many calls of a kind there were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallCount {
    /// The kind.
    pub call: String,
    /// How many.
    pub count: usize,
}

/// Where it stands how many calls failed, when the process has ended.
#[derive(Debug)]
pub struct FailedCalls {
    counted: PathBuf,
}

impl FailedCalls {
    /// How many.
    ///
    /// # Panics
    /// When the process has not ended by itself.
    #[must_use]
    pub fn count(&self) -> usize {
        let text = fs::read_to_string(&self.counted).unwrap();
        text.trim().parse().unwrap()
    }
}

impl DiskShim {
    /// Compiles it.
    ///
    /// # Panics
    /// When there is no C compiler.
    #[must_use]
    pub fn build() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("shim.c");
        fs::write(&source, include_str!("disk_shim.c")).unwrap();
        let shim = Self { folder };
        let compiled = Command::new("gcc")
            // Rust's library asks statx about no path at all, which the C library's header rules
            // out.
            .args([
                "-shared",
                "-fPIC",
                "-O1",
                "-fno-delete-null-pointer-checks",
                "-o",
            ])
            .arg(shim.library())
            .arg(source)
            .arg("-ldl")
            .status();
        assert!(compiled.unwrap().success());
        shim
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("shim.so")
    }

    /// Where the log goes.
    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Puts it before a command's calls, some of which fail.
    pub fn fail(&self, command: &mut Command, failing: FailingCalls<'_>) {
        let FailingCalls {
            call,
            path,
            count,
            errno,
        } = failing;
        command.env("LD_PRELOAD", self.library());
        command.env("QERA_FAIL", format!("{call} {path} {count} {errno}"));
    }

    /// Puts it before a command's calls, of which some go wrong.
    pub fn fault(&self, command: &mut Command, fault: Fault<'_>) {
        let Fault {
            call,
            path,
            nth,
            times,
            action,
        } = fault;
        let action = match action {
            Action::Fail(errno) => errno,
            Action::Shorten => -1,
            Action::Kill => -2,
            Action::Cut => -3,
        };
        command.env("LD_PRELOAD", self.library());
        command.env(
            "QERA_FAULT",
            format!("{call} {path} {nth} {times} {action}"),
        );
    }

    /// Puts it before a command's calls, some of which fail all the time on paths that contain a
    /// text: of those that read or ask one in some fifty, of those that need room one in some four
    /// hundred. A run that waits for both goes on.
    pub fn fail_now_and_then(&self, command: &mut Command, path: &str) -> FailedCalls {
        let counted = self.folder.path().join("failed");
        let (first, reading, writing) = (500, 53, 401);
        command.env("LD_PRELOAD", self.library());
        command.env(
            "QERA_EVERY",
            format!("{path} {first} {reading} {writing} {}", counted.display()),
        );
        FailedCalls { counted }
    }

    /// Puts it before a command's calls, and counts those on paths that contain a text.
    pub fn count(&self, command: &mut Command, path: &str) {
        let counts = self.counts_file();
        command.env("LD_PRELOAD", self.library());
        command.env("QERA_COUNT", format!("{path} {}", counts.display()));
    }

    /// What was counted, each kind of which there was a call.
    ///
    /// # Panics
    /// When nothing was.
    #[must_use]
    pub fn counts(&self) -> Vec<CallCount> {
        let text = fs::read_to_string(self.counts_file()).unwrap();
        let count = |line: &str| {
            let (call, count) = line.split_once(' ').unwrap();
            CallCount {
                call: call.to_owned(),
                count: count.parse().unwrap(),
            }
        };
        let counts = text.lines().map(count);
        counts.filter(|of| of.count > 0).collect()
    }

    fn counts_file(&self) -> PathBuf {
        self.folder.path().join("counts")
    }

    /// Puts it before a command's calls, and kills the process where something is to be renamed to
    /// a path that contains this.
    pub fn kill_at_rename(&self, command: &mut Command, path: &str) {
        command.env("LD_PRELOAD", self.library());
        command.env("QERA_KILL", path);
    }

    /// Puts it before a command's calls, and notes those that change the disk.
    pub fn watch(&self, command: &mut Command) {
        let _ = fs::remove_file(self.log_file());
        command.env("LD_PRELOAD", self.library());
        command.env("QERA_LOG", self.log_file());
    }

    /// What was noted: `create`, `sync` or `unlink`, and the path.
    ///
    /// # Panics
    /// When nothing was.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.log_file()).unwrap();
        log.lines().map(str::to_owned).collect()
    }
}
