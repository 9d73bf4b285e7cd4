//! Killed at any time and started again, the daemon ends as if nothing had happened.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use core::time::Duration;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use qera_tests::adapter::Adapter;
use qera_tests::daemon::TestDaemon;
use qera_tests::event::{event, folded, published};
use qera_tests::fixture::{SITES_OF_A_BLOCK, fixture_run, fixture_shards};
use qera_tests::live::{Live, arrive};
use qera_tests::output_folder::{SnapshotFile, statistics_files};
use qera_tests::tier;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");

/// Blocks of the fixture's model that are calibrated.
fn blocks() -> usize {
    tier::cases(1, 4)
}

fn start(daemon: &TestDaemon, more: &[&str]) -> Live {
    let more = [&["--idle-publish", "1"], more].concat();
    Live::start(daemon.command(&fixture_run("activations".as_ref(), blocks(), &more)))
}

/// What the last run left.
struct FinalState {
    adapter: Adapter,
    statistics: Vec<SnapshotFile>,
}

impl FinalState {
    fn of(daemon: &TestDaemon) -> Self {
        Self {
            adapter: daemon.adapter("qera-out"),
            statistics: statistics_files(&daemon.path().join("qera-out/state")),
        }
    }
}

/// The shards arrive one by one, and when everything is published the process is ended.
static UNDISTURBED: LazyLock<FinalState> = LazyLock::new(|| {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let mut live = start(&daemon, &[]);
    for (index, shard) in fixture_shards().iter().enumerate() {
        let name = format!("s{index}");
        arrive(shard, &daemon.watched(), &name);
        live.wait_for(&folded(&name));
    }
    live.wait_for(&published(8));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    FinalState::of(&daemon)
});

/// Same statistics bit for bit, same adapter, every shard once.
fn assert_ends_as_undisturbed(disturbed: &TestDaemon) {
    let (ours, theirs) = (FinalState::of(disturbed), &*UNDISTURBED);
    assert_eq!(ours.statistics.len(), SITES_OF_A_BLOCK * blocks());
    for (ours, theirs) in ours.statistics.iter().zip(&theirs.statistics) {
        assert!(ours == theirs, "{} differs", ours.name);
    }
    let (ours, theirs) = (&ours.adapter, &theirs.adapter);
    assert_eq!(ours.manifest["inputs"]["shards"], 8);
    assert_eq!(
        ours.manifest["inputs"]["journal_digest"],
        theirs.manifest["inputs"]["journal_digest"]
    );
    for layer in ours.layers() {
        assert_eq!(layer["rows"], 4096, "{layer}");
    }
    assert!(
        ours.bytes == theirs.bytes,
        "adapter_model.safetensors differs"
    );
    assert_eq!(ours.config, theirs.config);
    // What is carried from solve point to solve point is a function of the journal, too.
    for (ours, theirs) in ours.layers().iter().zip(theirs.layers()) {
        assert_eq!(ours["evidence"], theirs["evidence"]);
    }
}

#[test]
fn killed_at_several_points_it_ends_the_same() {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let watched = daemon.watched();
    let shards = fixture_shards();
    // Before the first shard; after a shard was accepted; while a burst is being folded and solved;
    // while it idles.
    let mut live = start(&daemon, &[]);
    live.wait_for(&event("watching"));
    live.kill();

    let mut live = start(&daemon, &[]);
    arrive(&shards[0], &watched, "s0");
    live.wait_for(&folded("s0"));
    live.kill();

    for (index, shard) in shards.iter().enumerate().take(4).skip(1) {
        arrive(shard, &watched, &format!("s{index}"));
    }
    let mut live = start(&daemon, &[]);
    live.wait_for(&event("restored").with("again", 1));
    live.wait_for(&folded("s2"));
    live.kill();

    let mut live = start(&daemon, &[]);
    live.wait_for(&event("published"));
    live.kill();

    let mut live = start(&daemon, &[]);
    arrive(&shards[4], &watched, "s4");
    live.wait_for(&folded("s4"));
    live.wait_for(&published(5));
    std::thread::sleep(Duration::from_millis(1500));
    live.kill();

    let mut live = start(&daemon, &["--threads", "1"]);
    for (index, shard) in shards.iter().enumerate().skip(5) {
        let name = format!("s{index}");
        arrive(shard, &watched, &name);
        live.wait_for(&folded(&name));
    }
    live.wait_for(&published(8));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert_ends_as_undisturbed(&daemon);
    assert!(!unfinished(&daemon.path().join("qera-out")));
}

/// Whether anything half done is left.
fn unfinished(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with(".qera-unfinished")
            || (path.is_dir() && !path.is_symlink() && unfinished(&path))
    })
}

/// Every few milliseconds, whatever it is doing; and the shards are deleted as soon as that is
/// allowed.
#[test]
fn killed_over_and_over_it_loses_nothing() {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let watched = daemon.watched();
    for (index, shard) in fixture_shards().iter().enumerate() {
        arrive(shard, &watched, &format!("s{index}"));
    }
    let consume = ["--consume", "delete"];
    let pauses = tier::cases(
        &[30, 60, 90, 150, 300, 700][..],
        &[30, 60, 90, 150, 200, 300, 450, 700, 1000, 1300, 1700],
    );
    for pause in pauses {
        let mut live = start(&daemon, &consume);
        std::thread::sleep(Duration::from_millis(*pause));
        live.kill();
    }
    let mut live = start(&daemon, &consume);
    live.wait_for(&event("watching"));
    while fs::read_dir(&watched).unwrap().count() > 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert_ends_as_undisturbed(&daemon);
}
