//! A daemon that goes on running beside the test: its events, signals to it, shards that arrive one
//! by one.
#![allow(clippy::unwrap_used, reason = "tests only")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use serde_json::Value;

use crate::daemon::PATIENCE;
use crate::event::ExpectedEvent;

/// The running daemon; killed when it is dropped.
#[derive(Debug)]
pub struct Live {
    child: Child,
    lines: Receiver<String>,
    /// Everything said so far, as far as it was read.
    pub log: String,
    /// The events among it, in their order.
    pub events: Vec<Value>,
}

/// What a process holds of the system.
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    /// Bytes of memory that no file stands behind.
    pub anonymous: u64,
    /// Open files.
    pub descriptors: usize,
}

impl Live {
    /// Starts a command that says its events as JSON.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        command.args(["--log-format", "json"]);
        Self::spawn(command)
    }

    /// Starts a command that says what people read: there are no events to wait for, the log is for
    /// the end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_in_text(command: Command) -> Self {
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
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
            events: Vec::new(),
        }
    }

    /// Waits until such an event is said; returns it.
    ///
    /// # Panics
    /// With the log, when it does not come.
    pub fn wait_for(&mut self, expected: &ExpectedEvent) -> Value {
        let deadline = Instant::now() + PATIENCE;
        while let Some(line) = self.next_line(deadline) {
            if let Some(event) = self.keep(&line)
                && expected.is(&event)
            {
                return event;
            }
        }
        panic!("{expected:?} was not said:\n{}", self.log);
    }

    /// How many such events were said, as far as the log was read.
    #[must_use]
    pub fn count(&self, expected: &ExpectedEvent) -> usize {
        let such = self.events.iter().filter(|said| expected.is(said));
        such.count()
    }

    /// Whether such an event was said, as far as the log was read.
    #[must_use]
    pub fn heard(&self, expected: &ExpectedEvent) -> bool {
        self.count(expected) > 0
    }

    fn next_line(&self, deadline: Instant) -> Option<String> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.lines.recv_timeout(left).ok()
    }

    /// Adds a line to the log; returns the event that it is.
    fn keep(&mut self, line: &str) -> Option<Value> {
        self.log.push_str(line);
        self.log.push('\n');
        let event: Value = serde_json::from_str(line).ok()?;
        self.events.push(event.clone());
        Some(event)
    }

    /// Bytes that it has read so far from files, by proc(5).
    ///
    /// # Panics
    /// Where the system does not say.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        let said = std::fs::read_to_string(format!("/proc/{}/io", self.child.id())).unwrap();
        let line = said.lines().find_map(|line| line.strip_prefix("rchar: "));
        line.unwrap().parse().unwrap()
    }

    /// What it holds of the system now, by proc(5).
    ///
    /// # Panics
    /// Where the system does not say.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        let process = format!("/proc/{}", self.child.id());
        let said = std::fs::read_to_string(format!("{process}/status")).unwrap();
        let line = said.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
        Footprint {
            anonymous: 1024 * kilobytes.parse::<u64>().unwrap(),
            descriptors: std::fs::read_dir(format!("{process}/fd")).unwrap().count(),
        }
    }

    /// Sends a signal by name, `TERM` say.
    ///
    /// # Panics
    /// When `kill` fails.
    pub fn send(&self, signal: &str) {
        send_signal(&self.child, signal);
    }

    /// Waits for the end; returns the exit code, `None` after a signal.
    ///
    /// # Panics
    /// When it does not end.
    pub fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while let Some(line) = self.next_line(deadline) {
            self.keep(&line);
        }
        assert!(Instant::now() < deadline, "it does not end:\n{}", self.log);
        self.child.wait().unwrap().code()
    }

    /// `SIGTERM`, and the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.send("TERM");
        self.end()
    }

    /// `SIGKILL`, and the end.
    ///
    /// # Panics
    /// When it had ended before.
    pub fn kill(&mut self) {
        self.send("KILL");
        assert_eq!(self.end(), None, "{}", self.log);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // It may have ended; nothing else can be done here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by name, `TERM` say.
///
/// # Panics
/// When `kill` fails.
pub fn send_signal(child: &Child, signal: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{signal}"), &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
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
