//! A daemon that watches its folder: shards arrive, generations get better, layers converge,
//! signals end it.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a step that fails fails the test; rows are made f32"
)]

mod arrivals;
mod convergence;
mod drained;
mod endings;
mod full_disk;
mod generations;
mod hang_up;
mod one_pass;
mod pause;
mod signals;
mod spared_solves;
mod unanswered;
mod unremoved;
mod zero_rows;

use qera_tests::daemon::TestDaemon;
use qera_tests::event::event;
use qera_tests::fixture::fixture_run;
use qera_tests::live::Live;
use qera_tests::three_layers::{LIVE_OPTIONS, daemon_without_shards};
use qera_tests::tier;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");

/// A daemon at work, and its folder.
struct RunningDaemon {
    daemon: TestDaemon,
    live: Live,
}

/// Blocks of the fixture's model that are calibrated.
fn blocks() -> usize {
    tier::cases(2, 4)
}

/// On an empty folder, with the fixture's model.
fn begin_on_fixture(more: &[&str]) -> RunningDaemon {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let options = fixture_run("activations".as_ref(), blocks(), more);
    let live = Live::start(daemon.command(&options));
    RunningDaemon { daemon, live }
}

/// On an empty folder, with the checkpoint of three layers; watching.
fn begin_on_three_layers(more: &[&str]) -> RunningDaemon {
    let daemon = daemon_without_shards(BINARY);
    let options = [&LIVE_OPTIONS[..], &["--idle-publish", "0.5"], more].concat();
    let mut live = Live::start(daemon.command(&options));
    live.wait_for(&event("watching").with("folder", "activations"));
    RunningDaemon { daemon, live }
}
