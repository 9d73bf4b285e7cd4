//! Solve points at which no layer could gain by a solve: they are spared, and the last generation
//! does not know of them.

use std::path::Path;

use qera_tests::adapter::Adapter;
use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::fixture::{FixtureModel, fixture_run, write_stream};
use qera_tests::live::Live;

use super::{BINARY, blocks};

/// What a live run left behind.
struct SettledRun {
    adapter: Adapter,
    /// Solve points that were spared.
    spared: u64,
}

/// Folds the stream live, until everything is solved, published and saved.
fn settle(watched: &Path, shards: usize, more: &[&str]) -> SettledRun {
    let daemon = TestDaemon::new(BINARY);
    let more = [&["--idle-publish", "1"], more].concat();
    let mut live = Live::start(daemon.command(&fixture_run(watched, blocks(), &more)));
    daemon.wait_until_idle(shards);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    SettledRun {
        adapter: daemon.adapter("qera-out"),
        spared: daemon.status()["work"]["spared"].as_u64().unwrap(),
    }
}

/// A wide tolerance spares solves, a narrow one does not; the end is that of a batch, for any
/// number of threads.
#[test]
fn a_solve_that_gains_nothing_is_spared() {
    let stream = tempfile::tempdir().unwrap();
    let watched = stream.path();
    let model = FixtureModel::load_first(blocks());
    let shards = write_stream(watched, &model, 16, 16).len();

    let narrow = settle(watched, shards, &["--tolerance", "0.000001"]);
    assert_eq!(narrow.spared, 0);
    let wide = settle(watched, shards, &["--tolerance", "0.9", "--threads", "1"]);
    let first = wide.spared;
    assert!(first >= 8, "{first} solve points were spared");
    let again = settle(watched, shards, &["--tolerance", "0.9", "--threads", "2"]);
    assert_eq!(again.spared, first);

    let batch = TestDaemon::new(BINARY);
    let once = fixture_run(watched, blocks(), &["--once"]);
    expect(&batch.run(&once), 0, &[]);
    let batch = batch.adapter("qera-out");
    for settled in [&narrow, &wide, &again] {
        assert!(settled.adapter.bytes == batch.bytes);
    }
}
