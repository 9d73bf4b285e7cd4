//! A sum counts once, whatever is killed, and its statistics do not depend on when it came.

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::event::folded;
use qera_tests::live::Live;
use qera_tests::output_folder::{snapshot_files, statistics_files};
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{daemon_without_shards, live_with, once_with, rename_in};

use super::{BINARY, ShardRows, SumType, state_version};

const SHARDS: usize = 6;

/// Rows and sums, sums alone, rows alone; f32 and f64; with weights.
fn shard(number: usize) -> Vec<TensorToWrite> {
    let of = ShardRows {
        number,
        weighted: number == 4,
    };
    let dtype = [SumType::F32, SumType::F64][number % 2];
    match number {
        2 => of.as_sums(0..4, dtype),
        3 => of.as_rows(0..4),
        _ => of.mixed(dtype),
    }
}

fn arrive(daemon: &TestDaemon, number: usize) {
    rename_in(daemon, &format!("shard-{number}"), &shard(number));
}

fn start(daemon: &TestDaemon, more: &[&str]) -> Live {
    let more = [&["--idle-publish", "1"], more].concat();
    Live::start(daemon.command(&live_with(&more)))
}

/// Six shards one by one.
fn undisturbed() -> TestDaemon {
    let daemon = daemon_without_shards(BINARY);
    let mut live = start(&daemon, &[]);
    for number in 0..SHARDS {
        arrive(&daemon, number);
        live.wait_for(&folded(&format!("shard-{number}")));
    }
    daemon.wait_until_idle(SHARDS);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    daemon
}

/// The same, killed after every shard and with one thread in between.
fn killed() -> TestDaemon {
    let daemon = daemon_without_shards(BINARY);
    for number in 0..SHARDS {
        let threads = ["1", "2"][number % 2];
        let mut live = start(&daemon, &["--threads", threads]);
        arrive(&daemon, number);
        live.wait_for(&folded(&format!("shard-{number}")));
        if number % 3 == 2 {
            daemon.wait_until_idle(number + 1);
        }
        live.kill();
    }
    let mut live = start(&daemon, &["--consume", "delete"]);
    daemon.wait_until_idle(SHARDS);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert_eq!(std::fs::read_dir(daemon.watched()).unwrap().count(), 0);
    daemon
}

#[test]
fn killed_live_and_at_once_it_ends_the_same() {
    let (whole, killed) = (undisturbed(), killed());
    let once = daemon_without_shards(BINARY);
    (0..SHARDS).for_each(|number| arrive(&once, number));
    expect(&once.run(&once_with(&[])), 0, &["6 shards folded"]);
    let state = |daemon: &TestDaemon| daemon.path().join("qera-out/state");
    for other in [&killed, &once] {
        let files = [&whole, other].map(|of| statistics_files(&state(of)));
        assert_eq!((files[0].len(), files[1].len()), (2, 2));
        for (ours, theirs) in files[0].iter().zip(&files[1]) {
            assert!(ours.bytes == theirs.bytes, "{} differs", ours.name);
        }
        let adapters = [&whole, other].map(|of| of.adapter("qera-out"));
        assert!(adapters[0].bytes == adapters[1].bytes, "A and B differ");
        assert_eq!(state_version(other), 5);
    }
    for (ours, theirs) in snapshot_files(&state(&whole))
        .iter()
        .zip(&snapshot_files(&state(&killed)))
    {
        assert!(ours.bytes == theirs.bytes, "{} differs", ours.name);
    }
    let layers = [&whole, &killed].map(|of| of.adapter("qera-out").layers().to_vec());
    assert_eq!(layers[0][0]["evidence"], layers[1][0]["evidence"]);
}

/// The same shard under another name is the same rows; sums of other rows that are equal are not.
#[test]
fn a_sum_that_comes_twice_counts_once() {
    let daemon = daemon_without_shards(BINARY);
    arrive(&daemon, 0);
    rename_in(&daemon, "shard-9", &shard(0));
    expect(&daemon.run(&once_with(&[])), 0, &["1 shards folded"]);
    assert_eq!(daemon.adapter("qera-out").layers()[0]["rows"], 300);
}
