//! States that are damaged, belong to another model, or are in use.

use std::fs;
use std::path::Path;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::output_folder::newest_snapshot;
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::{
    DOWN, K, Q, daemon_with_shards, once_with, shard_path, sine_values, write_checkpoint,
    write_rows_of_both_sites,
};

use super::BINARY;

#[test]
fn damage_is_seen_and_the_snapshot_before_is_used() {
    let daemon = daemon_with_shards(BINARY);
    let later = shard_path(&daemon, "shard-3");
    fs::rename(&later, later.with_extension("later")).unwrap();
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    fs::rename(later.with_extension("later"), &later).unwrap();
    expect(&daemon.run(&once_with(&[])), 0, &["4 shards folded"]);
    let good = daemon.adapter("qera-out").bytes;

    let file =
        newest_snapshot(&daemon.path().join("qera-out/state")).join("00000.statistics.safetensors");
    let bytes = fs::read(&file).unwrap();
    let mut damaged = bytes.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 4;
    fs::write(&file, &damaged).unwrap();
    write_rows_of_both_sites(&daemon, "shard-4", 8.0);
    expect(
        &daemon.run(&once_with(&[])),
        0,
        &["are damaged", "1 more are folded again", "5 shards folded"],
    );
    let continued = daemon.adapter("qera-out").bytes;
    assert!(continued != good);
    expect(&daemon.run(&once_with(&["--out", "fresh"])), 0, &[]);
    assert!(continued == daemon.adapter("fresh").bytes);

    // Every snapshot damaged: refused, and nothing is begun from zero.
    let snapshots = daemon.path().join("qera-out/state/snapshots");
    for entry in fs::read_dir(snapshots).unwrap() {
        fs::write(entry.unwrap().path().join("index.json"), "{}").unwrap();
    }
    expect(&daemon.run(&once_with(&[])), 4, &["no snapshot is whole"]);
    expect(&daemon.run(&once_with(&[])), 4, &["no snapshot is whole"]);
}

#[test]
fn a_damaged_journal_is_refused_by_line() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    let path = daemon.path().join("qera-out/state/journal");
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 4);
    fs::write(&path, text.replacen("shard-1", "shard-9", 1)).unwrap();
    expect(
        &daemon.run(&once_with(&[])),
        4,
        &["journal", "line 2 is damaged"],
    );
    // A missing line is no better.
    let lines: Vec<_> = text.lines().take(3).collect();
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    let missing = ["journal", "line 4 is missing"];
    expect(&daemon.run(&once_with(&[])), 4, &missing);
    fs::write(&path, &text).unwrap();
    expect(&daemon.run(&once_with(&[])), 0, &["nothing new"]);
}

#[test]
fn a_state_of_another_model_is_refused() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    let wide = [
        TensorToWrite::f32(&format!("{Q}.weight"), &[6, 12], &sine_values(72, 0.0)),
        TensorToWrite::f32(&format!("{K}.weight"), &[4, 12], &sine_values(48, 1.0)),
        TensorToWrite::f32(&format!("{DOWN}.weight"), &[8, 12], &sine_values(96, 2.0)),
    ];
    let checkpoint = daemon.path().join("checkpoint");
    write_safetensors(&checkpoint.join("model.safetensors"), &wide, &[]);
    expect(
        &daemon.run(&once_with(&[])),
        4,
        &["k_proj", "in_features 8", "is 12", "choose another --state"],
    );
    // Other weights of the same shapes are another adapter of the same statistics, if that is
    // meant.
    write_checkpoint(&checkpoint, &sine_values(48, 0.5));
    expect(&daemon.run(&once_with(&[])), 4, &["--new-checkpoint"]);
    expect(
        &daemon.run(&once_with(&["--new-checkpoint"])),
        0,
        &["evidence begins anew", "published generation 2"],
    );
}

#[test]
fn one_state_has_one_daemon() {
    let daemon = daemon_with_shards(BINARY);
    let state = daemon.path().join("shared");
    fs::create_dir(&state).unwrap();
    let lock = fs::File::create(state.join(".lock")).unwrap();
    lock.lock().unwrap();
    let run = daemon.run(&once_with(&["--state", "shared", "--out", "mine"]));
    expect(&run, 75, &["shared/.lock", "in use"]);
    drop(lock);
    expect(
        &daemon.run(&once_with(&["--state", "shared", "--out", "mine"])),
        0,
        &[],
    );
    expect(
        &daemon.run(&["status", "--state", "nothing"]),
        4,
        &["status"],
    );
    assert!(!Path::new("nothing").exists());
}

/// Without a checkpoint, what a refused shard says of widths does not count, and what cannot be
/// held is refused.
#[test]
fn refused_shards_make_no_sites() {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let gather = [
        "--once",
        "--watch",
        "activations",
        "--state",
        "gathered",
        "--threads",
        "1",
        "--memory-budget",
        "64MiB",
    ];
    let bad = TensorToWrite::f32("l", &[4, 7], &[f32::NAN; 28]);
    let huge = TensorToWrite::f32("h", &[1, 12_000], &sine_values(12_000, 0.0));
    let good = TensorToWrite::f32("l", &[4, 8], &sine_values(32, 0.0));
    write_safetensors(&shard_path(&daemon, "a"), &[bad], &[]);
    write_safetensors(&shard_path(&daemon, "b"), &[good], &[]);
    let first = daemon.run(&gather);
    expect(&first, 3, &["quarantined: shard a", "1 shards"]);
    fs::remove_file(shard_path(&daemon, "a")).unwrap();
    expect(&daemon.run(&gather), 0, &["1 shards"]);
    write_safetensors(&shard_path(&daemon, "c"), &[huge], &[]);
    expect(&daemon.run(&gather), 3, &["shard c", "left of the budget"]);
    fs::remove_file(shard_path(&daemon, "c")).unwrap();
    let empty = TensorToWrite::f32("none", &[0, 8], &[]);
    write_safetensors(&shard_path(&daemon, "d"), &[empty], &[]);
    expect(&daemon.run(&gather), 0, &["1 shards"]);
}
