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
            // Rust's library asks statx about no path at all, which the C library's header rules out.
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

    /// Puts it before a command's calls, and kills the process where something is to be renamed to a
    /// path that contains this.
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
