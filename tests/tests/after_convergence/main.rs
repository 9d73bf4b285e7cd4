//! `--after-convergence`: what a site whose layers have converged leaves out, and when it takes it
//! again.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod drift;
mod open_sites;
mod stationary_text;
mod two_texts;

use qera_tests::daemon::TestDaemon;
use qera_tests::live::Live;
use qera_tests::output_folder::snapshot_files;
use qera_tests::three_layers::live_with;
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");

/// Live on the checkpoint of three layers.
fn live_options<'a>(more: &[&'a str]) -> Vec<&'a str> {
    live_with(&[&["--idle-publish", "2", "--keep-generations", "50"], more].concat())
}

fn start(daemon: &TestDaemon, more: &[&str]) -> Live {
    Live::start(daemon.command(&live_options(more)))
}

/// Runs until so many shards are folded, solved and published.
fn run(daemon: &TestDaemon, shards: usize, more: &[&str]) -> Live {
    let mut live = start(daemon, more);
    daemon.wait_until_idle(shards);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    live
}

/// What leaves rows out, both ways at one time: most of the time is spent on waiting.
fn with_both_modes(check: impl Fn(&'static str) + Sync) {
    std::thread::scope(|scope| {
        for mode in ["stop", "sample"] {
            let check = &check;
            scope.spawn(move || check(mode));
        }
    });
}

fn number(layer: &Value, field: &str) -> u64 {
    layer[field].as_u64().unwrap()
}

/// Same adapter, same statistics, same progress, bit for bit; same numbers in the manifest.
fn assert_same(a: &TestDaemon, b: &TestDaemon) {
    let files = |daemon: &TestDaemon| snapshot_files(&daemon.path().join("qera-out/state"));
    for (ours, theirs) in files(a).iter().zip(&files(b)) {
        assert!(ours.bytes == theirs.bytes, "{} differs", ours.name);
    }
    let (a, b) = (a.adapter("qera-out"), b.adapter("qera-out"));
    assert!(a.bytes == b.bytes, "adapter_model.safetensors differs");
    assert_eq!(a.config, b.config);
    for (ours, theirs) in a.layers().iter().zip(b.layers()) {
        for field in ["rows", "rows_skipped", "converged", "folding", "evidence"] {
            assert_eq!(ours[field], theirs[field], "{}: {field}", ours["name"]);
        }
    }
}
