//! A daemon that goes on running beside the test: what it says, signals to it, shards that arrive one by one.
#![allow(clippy::unwrap_used, reason = "tests only")]

use core::time::Duration;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use crate::model::{FixtureModel, calibration_tokens, write_shard};

/// Nothing that a test waits for takes longer.
const LIMIT: Duration = Duration::from_secs(120);

/// The running daemon; killed when it is dropped.
#[derive(Debug)]
pub struct Live {
    child: Child,
    lines: Receiver<String>,
    /// Everything said so far, as far as it was read.
    pub log: String,
}

impl Live {
    /// Starts a command.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let reader = BufReader::new(child.stderr.take().unwrap());
        let (said, lines) = channel();
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                if said.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            lines,
            log: String::new(),
        }
    }

    /// Waits until a line has these words; returns it.
    ///
    /// # Panics
    /// With the log, when it does not come.
    pub fn wait_for(&mut self, words: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("'{words}' was not said:\n{}", self.log);
            };
            self.log.push_str(&line);
            self.log.push('\n');
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Sends a signal by name, `TERM` say.
    ///
    /// # Panics
    /// When `kill` fails.
    pub fn send(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Waits for the end; returns the exit code, `None` after a signal.
    ///
    /// # Panics
    /// When it does not end.
    pub fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + LIMIT;
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.log.push_str(&line);
            self.log.push('\n');
        }
        assert!(Instant::now() < deadline, "it does not end:\n{}", self.log);
        self.child.wait().unwrap().code()
    }

    /// `SIGTERM`, and the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.send("TERM");
        self.end()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // It may have ended; nothing else can be done here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies a file into a folder as producers do: aside, then renamed in.
///
/// # Panics
/// When that fails.
pub fn arrive(from: &Path, folder: &Path, name: &str) {
    let aside = folder.join(format!(".{name}.part"));
    std::fs::copy(from, &aside).unwrap();
    std::fs::rename(aside, folder.join(format!("{name}.safetensors"))).unwrap();
}

/// The fixture's shards, in the order of their names.
///
/// # Panics
/// When they are not there.
#[must_use]
pub fn fixture_shards() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/activations");
    let mut shards: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    shards.sort();
    shards
}

/// Writes shards of `sequences` sequences each of the calibration text, and returns them in order.
///
/// # Panics
/// When the folder cannot be written.
#[must_use]
pub fn long_stream(folder: &Path, shards: usize, sequences: usize) -> Vec<PathBuf> {
    std::fs::create_dir_all(folder).unwrap();
    let (model, tokens) = (FixtureModel::load(), calibration_tokens());
    let write = |(index, part): (usize, &[Vec<usize>])| {
        let path = folder.join(format!("{index:04}.safetensors"));
        write_shard(&path, &model, part);
        path
    };
    let parts = tokens.chunks(sequences).take(shards);
    parts.enumerate().map(write).collect()
}

/// The fixture's model, as an argument.
#[must_use]
pub fn fixture_model() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/model");
    folder.display().to_string()
}

/// Arguments of a run on `watched` with the fixture's model, 3 bits, rank 8; [`fixture_model`] is lent for `model`.
#[must_use]
pub const fn fixture_run<'a>(watched: &'a str, model: &'a str) -> [&'a str; 8] {
    [
        "--watch",
        watched,
        "--checkpoint",
        model,
        "--quantizer",
        "mxint3",
        "--rank",
        "8",
    ]
}

/// The numbers of the generations in an output folder, sorted.
///
/// # Panics
/// When there is no such folder.
#[must_use]
pub fn generations(out: &Path) -> Vec<u64> {
    let mut found: Vec<u64> = std::fs::read_dir(out.join("generations"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .collect();
    found.sort_unstable();
    found
}

/// The statistics files of the newest snapshot, sorted, with their bytes.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn statistics(state: &Path) -> Vec<(String, Vec<u8>)> {
    let snapshots = std::fs::read_dir(state.join("snapshots")).unwrap();
    let newest = snapshots.map(|e| e.unwrap().path()).max().unwrap();
    let mut files: Vec<_> = std::fs::read_dir(newest)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(".statistics."))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    files
}
