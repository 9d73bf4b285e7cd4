//! Weights of kept rows are in the state.

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::live::Live;
use qera_tests::output_folder::{snapshot_files, statistics_files};
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{daemon_without_shards, live_with, once_with, rename_in};

use super::{BINARY, Rows, state_version};

/// Sequences of fewer than 64 rows wait for more: the last ones are waited for across the restart.
fn shard(number: usize) -> Vec<TensorToWrite> {
    let rows = Rows {
        shard: number,
        sequences: 11,
        length: 50,
    };
    // The third shard has none.
    if number == 2 {
        rows.tensors(|_, _| None)
    } else {
        rows.weighted(&[0.5, 4.0, 1.0, 0.0, 2.0])
    }
}

fn start(daemon: &TestDaemon) -> Live {
    Live::start(daemon.command(&live_with(&["--idle-publish", "1"])))
}

fn arrive(daemon: &TestDaemon, shards: core::ops::Range<usize>) {
    let all = shards.end;
    for number in shards {
        rename_in(daemon, &format!("shard-{number}"), &shard(number));
    }
    daemon.wait_until_idle(all);
}

/// Two shards, then two more, with a stop between them or without.
fn live(stopped: bool) -> TestDaemon {
    let daemon = daemon_without_shards(BINARY);
    let mut live = start(&daemon);
    arrive(&daemon, 0..2);
    if stopped {
        assert_eq!(live.stop(), Some(0), "{}", live.log);
        live = start(&daemon);
    }
    arrive(&daemon, 2..4);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    daemon
}

#[test]
fn a_stopped_run_goes_on_as_one_that_was_not() {
    let (stopped, whole) = (live(true), live(false));
    let state = |daemon: &TestDaemon| daemon.path().join("qera-out/state");
    let (ours, theirs) = (
        snapshot_files(&state(&stopped)),
        snapshot_files(&state(&whole)),
    );
    assert_eq!((ours.len(), theirs.len()), (4, 4));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert!(ours.bytes == theirs.bytes, "{} differs", ours.name);
    }
    assert_eq!(state_version(&stopped), 4);
    let adapters = [&stopped, &whole].map(|of| of.adapter("qera-out"));
    assert!(adapters[0].bytes == adapters[1].bytes);
    let evidence = |of: usize| adapters[of].layers()[0]["evidence"].clone();
    assert!(
        evidence(0)["error"].as_f64().unwrap() > 0.0,
        "{}",
        evidence(0)
    );
    assert_eq!(evidence(0), evidence(1));

    let once = daemon_without_shards(BINARY);
    (0..4).for_each(|number| rename_in(&once, &format!("shard-{number}"), &shard(number)));
    expect(&once.run(&once_with(&[])), 0, &[]);
    assert!(once.adapter("qera-out").bytes == adapters[0].bytes);
    let (once, live) = (
        statistics_files(&state(&once)),
        statistics_files(&state(&stopped)),
    );
    assert_eq!((once.len(), live.len()), (2, 2));
    for (once, live) in once.iter().zip(&live) {
        assert!(once.bytes == live.bytes, "{} differs", once.name);
    }
}
