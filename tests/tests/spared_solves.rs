//! Solve points at which no layer could gain by a solve: they are spared, and the last generation does not know of them.

use core::time::Duration;
use std::time::Instant;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::live::{Live, fixture_model, fixture_run, long_stream};

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");

fn status(daemon: &TestDaemon) -> serde_json::Value {
    let status = daemon.run(&["status", "--json"]);
    serde_json::from_str(&status.output).unwrap_or_default()
}

/// Folds the stream live, until everything is solved, published and saved.
fn live(watched: &str, shards: usize, extra: &[&str]) -> (TestDaemon, serde_json::Value) {
    let daemon = TestDaemon::new(BINARY);
    let model = fixture_model();
    let arguments = [
        &fixture_run(watched, &model)[..],
        &["--idle-publish", "1"],
        extra,
    ];
    let mut live = Live::start(daemon.command(&arguments.concat()));
    let deadline = Instant::now() + Duration::from_secs(120);
    while !(status(&daemon)["phase"] == "idle" && status(&daemon)["shards"] == shards) {
        assert!(Instant::now() < deadline, "{shards} shards do not settle");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let found = status(&daemon);
    (daemon, found)
}

/// A wide tolerance spares solves, a narrow one does not; the end is that of a batch, for any number of threads.
#[test]
fn a_solve_that_gains_nothing_is_spared() {
    let stream = tempfile::tempdir().unwrap();
    let shards = long_stream(stream.path(), 16, 16).len();
    let watched = stream.path().display().to_string();
    let spared = |status: &serde_json::Value| status["work"]["spared"].as_u64().unwrap();

    let (narrow, status) = live(&watched, shards, &["--tolerance", "0.000001"]);
    assert_eq!(spared(&status), 0);
    let (wide, status) = live(&watched, shards, &["--tolerance", "0.9", "--threads", "1"]);
    let first = spared(&status);
    assert!(first >= 8, "{first} solve points were spared");
    let (again, status) = live(&watched, shards, &["--tolerance", "0.9", "--threads", "2"]);
    assert_eq!(spared(&status), first);

    let batch = TestDaemon::new(BINARY);
    let model = fixture_model();
    let once = [&fixture_run(&watched, &model)[..], &["--once"]].concat();
    expect(&batch.run(&once), 0, &[]);
    let batch = batch.adapter("qera-out");
    for daemon in [&narrow, &wide, &again] {
        assert!(daemon.adapter("qera-out").bytes == batch.bytes);
    }
}
