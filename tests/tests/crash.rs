//! Killed at any time and started again, the daemon ends as if nothing had happened.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::fs;
use std::path::Path;

use qera_tests::daemon::TestDaemon;
use qera_tests::live::{Live, arrive, fixture_model, fixture_shards, statistics};

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");

fn start(daemon: &TestDaemon, extra: &[&str]) -> Live {
    let model = fixture_model();
    let basic = [
        "--watch",
        "activations",
        "--checkpoint",
        &model,
        "--quantizer",
        "mxint3",
        "--rank",
        "8",
        "--idle-publish",
        "1",
    ];
    Live::start(daemon.command(&[&basic, extra].concat()))
}

fn daemon() -> TestDaemon {
    let daemon = TestDaemon::new(BINARY);
    fs::create_dir(daemon.path().join("activations")).unwrap();
    daemon
}

/// The shards arrive one by one, and the process is ended, then it publishes what is there.
fn undisturbed() -> TestDaemon {
    let daemon = daemon();
    let mut live = start(&daemon, &[]);
    for (index, shard) in fixture_shards().iter().enumerate() {
        arrive(
            shard,
            &daemon.path().join("activations"),
            &format!("s{index}"),
        );
        live.wait_for(&format!("folded s{index}"));
    }
    live.wait_for("8 shards folded");
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    daemon
}

/// Same statistics bit for bit, same adapter, every shard once.
fn assert_same(disturbed: &TestDaemon, undisturbed: &TestDaemon) {
    let state = |daemon: &TestDaemon| statistics(&daemon.path().join("qera-out/state"));
    let (ours, theirs) = (state(disturbed), state(undisturbed));
    assert_eq!(ours.len(), 16);
    for ((name, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        assert!(ours == theirs, "{name} differs");
    }
    let (ours, theirs) = (
        disturbed.adapter("qera-out"),
        undisturbed.adapter("qera-out"),
    );
    assert_eq!(ours.manifest["inputs"]["shards"], 8);
    assert_eq!(
        ours.manifest["inputs"]["journal_digest"],
        theirs.manifest["inputs"]["journal_digest"]
    );
    for layer in ours.manifest["layers"].as_array().unwrap() {
        assert_eq!(layer["rows"], 4096, "{layer}");
    }
    assert!(
        ours.bytes == theirs.bytes,
        "adapter_model.safetensors differs"
    );
    assert_eq!(ours.config, theirs.config);
    // What is carried from solve point to solve point is a function of the journal, too.
    for (ours, theirs) in ours.manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .zip(theirs.manifest["layers"].as_array().unwrap())
    {
        assert_eq!(ours["evidence"], theirs["evidence"]);
    }
}

#[test]
fn killed_at_several_points_it_ends_the_same() {
    let expected = undisturbed();
    let daemon = daemon();
    let watched = daemon.path().join("activations");
    let shards = fixture_shards();
    // Before the first shard; after a shard was accepted; while a burst is being folded and solved; while it idles.
    let mut live = start(&daemon, &[]);
    live.wait_for("watching");
    live.send("KILL");
    assert_eq!(live.end(), None);

    let mut live = start(&daemon, &[]);
    arrive(&shards[0], &watched, "s0");
    live.wait_for("folded s0");
    live.send("KILL");
    assert_eq!(live.end(), None);

    for (index, shard) in shards.iter().enumerate().take(4).skip(1) {
        arrive(shard, &watched, &format!("s{index}"));
    }
    let mut live = start(&daemon, &[]);
    live.wait_for("1 more are folded again");
    live.wait_for("folded s2");
    live.send("KILL");
    assert_eq!(live.end(), None);

    let mut live = start(&daemon, &[]);
    live.wait_for("published generation");
    live.send("KILL");
    assert_eq!(live.end(), None);

    let mut live = start(&daemon, &[]);
    arrive(&shards[4], &watched, "s4");
    live.wait_for("folded s4");
    live.wait_for("5 shards folded");
    std::thread::sleep(core::time::Duration::from_millis(1500));
    live.send("KILL");
    assert_eq!(live.end(), None);

    let mut live = start(&daemon, &["--threads", "1"]);
    for (index, shard) in shards.iter().enumerate().skip(5) {
        arrive(shard, &watched, &format!("s{index}"));
        live.wait_for(&format!("folded s{index}"));
    }
    live.wait_for("8 shards folded");
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert_same(&daemon, &expected);
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

/// Every few milliseconds, whatever it is doing; and the shards are deleted as soon as that is allowed.
#[test]
fn killed_over_and_over_it_loses_nothing() {
    let expected = undisturbed();
    let daemon = daemon();
    let watched = daemon.path().join("activations");
    for (index, shard) in fixture_shards().iter().enumerate() {
        arrive(shard, &watched, &format!("s{index}"));
    }
    let consume = ["--consume", "delete"];
    for pause in [30, 60, 90, 150, 200, 300, 450, 700, 1000, 1300, 1700] {
        let mut live = start(&daemon, &consume);
        std::thread::sleep(core::time::Duration::from_millis(pause));
        live.send("KILL");
        assert_eq!(live.end(), None);
    }
    let mut live = start(&daemon, &consume);
    live.wait_for("watching");
    while fs::read_dir(&watched).unwrap().count() > 0 {
        std::thread::sleep(core::time::Duration::from_millis(50));
    }
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert_same(&daemon, &expected);
}
