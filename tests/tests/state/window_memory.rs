//! `--window-memory`: rows held out and kept aside are bounded for the whole run, shared out by the
//! widths of the inputs, and the same however the run came to its rows.

use std::fs;

use qera_tests::copied_folder::copy_folder;
use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::live::Live;
use qera_tests::output_folder::{SnapshotFile, statistics_files};
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{
    DOWN, Q, daemon_with_shards, live_with, once_with, rename_in, shard_path, sine_values,
};

use super::BINARY;

/// Of inputs of 8 and 12 channels: 850 bytes a channel, 160 rows of f32 held out.
const MEMORY: &str = "17000";
const BOUNDED: [&str; 2] = ["--window-memory", MEMORY];
const CHANNELS: usize = 8 + 12;

fn statistics(daemon: &TestDaemon) -> Vec<SnapshotFile> {
    statistics_files(&daemon.path().join("qera-out/state"))
}

/// Bytes of the rows that are held out, by the width of their input.
#[expect(clippy::unwrap_used, reason = "a step that fails fails the test")]
fn held_out(daemon: &TestDaemon) -> Vec<[usize; 2]> {
    let of = |file: SnapshotFile| {
        let tensors = safetensors::SafeTensors::deserialize(&file.bytes).unwrap();
        let width = tensors.tensor("mean_abs").unwrap().shape()[0];
        let windows = tensors
            .iter()
            .filter(|(name, _)| name.starts_with("window"));
        [width, windows.map(|(_, rows)| rows.data().len()).sum()]
    };
    statistics(daemon).into_iter().map(of).collect()
}

#[test]
fn it_is_shared_out_by_widths() {
    let [free, bounded] = [(); 2].map(|()| daemon_with_shards(BINARY));
    expect(&free.run(&once_with(&[])), 0, &[]);
    expect(&bounded.run(&once_with(&BOUNDED)), 0, &["4 shards folded"]);
    // 1,200 rows of f32 came, and all of them fit in what there is without asking.
    for [width, bytes] in held_out(&free) {
        assert_eq!(bytes, 1200 * 4 * width);
    }
    let held = held_out(&bounded);
    assert_eq!(held.iter().map(|of| of[0]).sum::<usize>(), CHANNELS);
    let [rows, same] = [0, 1].map(|i| held[i][1] / (4 * held[i][0]));
    assert_eq!(rows, same, "as many rows of each");
    // At least four blocks, of a quarter of the window each at most.
    assert!((120..=160).contains(&rows), "{rows}");
}

/// In one batch, in a run for each shard, live: the same rows are held out, and the same adapter is
/// solved.
#[test]
fn it_does_not_matter_how_the_rows_came() {
    let [whole, parts, watched] = [(); 3].map(|()| daemon_with_shards(BINARY));
    expect(&whole.run(&once_with(&BOUNDED)), 0, &["4 shards folded"]);

    let aside = |shard: usize| {
        let path = shard_path(&parts, &format!("shard-{shard}"));
        (path.with_extension("later"), path)
    };
    for (later, path) in (1..4).map(aside) {
        fs::rename(path, later).unwrap();
    }
    expect(&parts.run(&once_with(&BOUNDED)), 0, &[]);
    for (later, path) in (1..4).map(aside) {
        fs::rename(later, path).unwrap();
        expect(&parts.run(&once_with(&BOUNDED)), 0, &["continuing from"]);
    }

    let options = live_with(&[&BOUNDED[..], &["--idle-publish", "0.5"]].concat());
    let mut live = Live::start(watched.command(&options));
    watched.wait_until_idle(4);
    assert_eq!(live.stop(), Some(0), "{}", live.log);

    for other in [&parts, &watched] {
        assert_eq!(statistics(&whole), statistics(other));
        assert!(whole.adapter("qera-out").bytes == other.adapter("qera-out").bytes);
    }
}

/// Without a checkpoint inputs come with the shards, and the share of each becomes smaller as they
/// do; a run that was killed after it knew of an input, and before a snapshot held it, holds out
/// what it would have held out undisturbed.
#[test]
fn later_inputs_take_their_share() {
    const SNAPSHOTS: &str = "qera-out/state/snapshots";
    let [whole, killed] = [(); 2].map(|()| TestDaemon::with_watched_folder(BINARY));
    let options = ["--once", "--watch", "activations"];
    let options = [&options[..], &BOUNDED].concat();
    let write = |daemon: &TestDaemon, shard: usize| {
        let rows = |module, width| {
            let values = sine_values(300 * width, shard as f32);
            TensorToWrite::f32(module, &[300, width], &values)
        };
        let mut tensors = vec![rows(Q, 8)];
        if shard >= 3 {
            tensors.push(rows(DOWN, 12));
        }
        rename_in(daemon, &format!("shard-{shard}"), &tensors);
    };
    for shard in 0..5 {
        write(&whole, shard);
    }
    expect(&whole.run(&options), 0, &["5 shards"]);

    for shard in 0..2 {
        write(&killed, shard);
    }
    expect(&killed.run(&options), 0, &["2 shards"]);
    let (snapshots, before) = (killed.path().join(SNAPSHOTS), killed.path().join("before"));
    copy_folder(&snapshots, &before);
    for shard in 2..4 {
        write(&killed, shard);
    }
    expect(&killed.run(&options), 0, &["4 shards"]);
    // Journal and inputs are as they are now, the snapshots as they were.
    fs::remove_dir_all(&snapshots).unwrap();
    copy_folder(&before, &snapshots);
    write(&killed, 4);
    expect(
        &killed.run(&options),
        0,
        &["2 more are folded again", "5 shards"],
    );
    assert_eq!(statistics(&whole), statistics(&killed));

    let held = held_out(&whole);
    let bytes: usize = held.iter().map(|of| of[1]).sum();
    assert!(held.len() == 2 && bytes <= 17_000, "{bytes}");
}

/// It belongs to the state: rows that were dropped do not come back.
#[test]
fn another_bound_is_refused() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&BOUNDED)), 0, &[]);
    let before = statistics(&daemon);
    let said = ["--window-memory 17000", "this run's is 1073741824"];
    expect(&daemon.run(&once_with(&[])), 4, &said);
    assert_eq!(statistics(&daemon), before);
    // What adds no row takes the state as it is.
    let solve = [
        "solve",
        "--state",
        "qera-out/state",
        "--checkpoint",
        "checkpoint",
        "--out",
        "other",
        "--rank",
        "2",
        "--block-size",
        "4",
    ];
    expect(&daemon.run(&solve), 0, &[]);
    // Said all the same, it has to be the state's.
    let saying = |memory| daemon.run(&[&solve[..], &["--window-memory", memory]].concat());
    expect(
        &saying("16kib"),
        4,
        &["--window-memory 17000", "this run's is 16384"],
    );
    expect(&saying("17.0KB"), 0, &[]);
    for bad in ["0", "half"] {
        let run = daemon.run(&once_with(&["--window-memory", bad]));
        expect(&run, 2, &["--window-memory", bad]);
    }
}
