//! `--notify`: generations are handed to a server that answers as vLLM does, and what goes wrong
//! with it does no harm.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod canary;
mod faults;
mod kept;
mod permanent;
mod received;
mod restarts;
mod secrets;
mod served;
mod server;

use core::time::Duration;
use std::path::Path;
use std::time::Instant;

use qera_tests::daemon::{PATIENCE, TestDaemon};
use qera_tests::event::event;
use qera_tests::live::Live;
use qera_tests::three_layers::{LIVE_OPTIONS, daemon_without_shards};

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");

/// A live run on the checkpoint of three layers.
fn start(daemon: &TestDaemon, more: &[&str]) -> Live {
    let options = [&LIVE_OPTIONS[..], &["--idle-publish", "0.3"], more].concat();
    let mut live = Live::start(daemon.command(&options));
    live.wait_for(&event("watching").with("folder", "activations"));
    live
}

/// A daemon at work, and its folder.
struct RunningDaemon {
    daemon: TestDaemon,
    live: Live,
}

/// A live run in a folder of its own.
fn begin(more: &[&str]) -> RunningDaemon {
    let daemon = daemon_without_shards(BINARY);
    let live = start(&daemon, more);
    RunningDaemon { daemon, live }
}

impl RunningDaemon {
    /// Waits until so many shards are folded, and the server serves the newest generation; returns
    /// its number.
    fn rest_at(&self, shards: usize) -> u64 {
        let newest = self.daemon.wait_until_idle(shards)["generation"].clone();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.daemon.status();
            let server = &status["servers"][0];
            if server["generation"] == newest && server["problem"].is_null() {
                return newest.as_u64().unwrap();
            }
            assert!(Instant::now() < deadline, "{status}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The absolute path of a generation.
fn generation(daemon: &TestDaemon, number: u64) -> String {
    let out = std::fs::canonicalize(daemon.path().join("qera-out")).unwrap();
    let path = Path::new(&out).join(format!("generations/{number:06}"));
    path.display().to_string()
}
