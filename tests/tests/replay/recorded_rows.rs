//! Which rows are replayed: those that a run would fold, weighed as it weighs them.

use std::fs;
use std::process::Command;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{
    DOWN, K, Q, daemon_with_shards, daemon_without_shards, once_with, remove_shards, rename_in,
    shard_path, sine_values, write_rows_of_both_sites,
};

use crate::BINARY;
use crate::manifest::rows_of;
use crate::oracle::{WeightedRows, numbers, peft_factors};
use crate::replayed::{Replayed, replay};

/// Rows of one shard, in sequences.
const SEQUENCES: usize = 4;
const LENGTH: usize = 75;
const ROWS: usize = SEQUENCES * LENGTH;

/// A run with a base on these shards.
fn published(shards: &[Vec<TensorToWrite>]) -> TestDaemon {
    let daemon = daemon_without_shards(BINARY);
    for (number, tensors) in shards.iter().enumerate() {
        rename_in(&daemon, &format!("shard-{number}"), tensors);
    }
    expect(&daemon.run(&once_with(&["--emit-base"])), 0, &[]);
    daemon
}

fn assert_figures(daemon: &TestDaemon, replayed: &Replayed, layer: &str, rows: &WeightedRows) {
    let tensor = format!("{layer}.weight");
    let at = |file: &str| daemon.path().join(file);
    let weight = numbers(&at("checkpoint/model.safetensors"), &tensor);
    let quantized = numbers(&at("qera-out/base/model.safetensors"), &tensor);
    let factors = peft_factors(&at("qera-out/current"), layer, 1.0);
    let expected = rows.expected(&weight, &quantized, &factors);
    replayed.assert_figures(layer, &expected);
}

/// Both sites' rows of a shard, with what says how much each counts.
fn weighted(shard: usize, beside: impl Fn(&str) -> TensorToWrite) -> Vec<TensorToWrite> {
    let tensors = [Q, DOWN].into_iter().zip([8, 12]).flat_map(|(key, width)| {
        let mut values = sine_values(ROWS * width, shard as f32 + width as f32);
        // The first row counts in no shard.
        values[0] = f32::NAN;
        let rows = TensorToWrite::f32(key, &[SEQUENCES, LENGTH, width], &values);
        [rows, beside(key)]
    });
    tensors.collect()
}

/// Rows of a site of two shards, by their weights.
fn expected_rows(width: usize, weight: impl Fn(usize) -> f64) -> WeightedRows {
    let mut rows = WeightedRows {
        values: Vec::new(),
        weights: Vec::new(),
    };
    for shard in 0..2 {
        let values = sine_values(ROWS * width, shard as f32 + width as f32);
        for (row, of_row) in values.chunks(width).enumerate() {
            if weight(row) > 0.0 {
                rows.values.extend(of_row);
                rows.weights.push(weight(row));
            }
        }
    }
    rows
}

#[test]
fn padding_and_token_weights_count_as_in_a_run() {
    let weight = |row: usize| [0.0, 1.0, 0.25, 3.0][row % 4];
    let with_weights = |shard: usize| {
        weighted(shard, |key| {
            let weights: Vec<f32> = (0..ROWS)
                .map(|row| [0.0, 1.0, 0.25, 3.0][row % 4])
                .collect();
            TensorToWrite::f32(&format!("{key}::weight"), &[SEQUENCES, LENGTH], &weights)
        })
    };
    let with_mask = |shard: usize| {
        weighted(shard, |key| {
            let mask: Vec<u8> = (0..ROWS).map(|row| u8::from(row % 4 != 0)).collect();
            TensorToWrite::u8(&format!("{key}::mask"), &[SEQUENCES, LENGTH], &mask)
        })
    };
    let masked = |row: usize| f64::from(u8::from(!row.is_multiple_of(4)));
    for (shards, weight) in [
        (
            [with_weights(0), with_weights(1)],
            &weight as &dyn Fn(usize) -> f64,
        ),
        ([with_mask(0), with_mask(1)], &masked),
    ] {
        let daemon = published(&shards);
        let replayed = replay(&daemon, "qera-out/current", &[]);
        replayed.assert_holds();
        for (layer, width) in [(Q, 8), (K, 8), (DOWN, 12)] {
            assert_figures(&daemon, &replayed, layer, &expected_rows(width, weight));
            let said = replayed.layer(layer);
            assert_eq!(
                (&said["rows"], &said["verdict"]),
                (&450.into(), &"same".into())
            );
        }
    }
}

/// What `verify` and a shell around it read, by what the system counts.
fn bytes_read(daemon: &TestDaemon, options: &str) -> u64 {
    let script = format!("'{BINARY}' verify {options} >verify.txt && cat /proc/$$/io");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(daemon.path());
    let run = shell.output().unwrap();
    assert!(run.status.success(), "{run:?}");
    let counts = String::from_utf8(run.stdout).unwrap();
    let mut lines = counts.lines();
    let read = lines.find_map(|line| line.strip_prefix("rchar: "));
    read.unwrap().parse().unwrap()
}

/// Twice to know and check a shard, then a layer's input once for its three matrices.
#[test]
fn rows_are_read_once_for_a_layer() {
    let daemon = daemon_without_shards(BINARY);
    let rows = 20_000;
    let inputs = [(Q, 8), (DOWN, 12)];
    let tensors = inputs.map(|(key, width)| {
        TensorToWrite::f32(key, &[rows, width], &sine_values(rows * width, 0.3))
    });
    rename_in(&daemon, "shard-0", &tensors);
    expect(&daemon.run(&once_with(&["--emit-base"])), 0, &[]);
    let options = "--adapter qera-out/current";
    let replay = format!("{options} --checkpoint checkpoint --replay activations");
    let more = bytes_read(&daemon, &replay) - bytes_read(&daemon, options);
    let of = |width: usize| (rows * width * 4) as u64;
    // q and k read one input each.
    let expected = 2 * (of(8) + of(12)) + 2 * of(8) + of(12);
    let beside = expected..expected + of(8) / 4;
    assert!(beside.contains(&more), "{more} bytes, not {expected}");
}

#[test]
fn some_of_the_rows_are_evenly_spaced_over_the_shards() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&["--emit-base"])), 0, &[]);
    let replayed = replay(&daemon, "qera-out/current", &["--replay-rows", "70"]);
    replayed.assert_holds();
    for (layer, width) in [(Q, 8), (DOWN, 12)] {
        let all = rows_of(layer);
        let rows = (0..70).map(|i| i * 1200 / 70);
        let rows = rows.flat_map(|row| all.values[row * width..][..width].to_vec());
        let rows = WeightedRows::plain(rows.collect(), width);
        assert_figures(&daemon, &replayed, layer, &rows);
        let said = replayed.layer(layer);
        assert_eq!(
            (&said["rows"], &said["verdict"]),
            (&70.into(), &"other-rows".into())
        );
    }
}

#[test]
fn a_broken_shard_is_named_and_the_others_are_read() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&["--emit-base"])), 0, &[]);
    let path = shard_path(&daemon, "shard-2");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    fs::copy(
        shard_path(&daemon, "shard-0"),
        shard_path(&daemon, "shard-7"),
    )
    .unwrap();
    fs::write(shard_path(&daemon, "shard-8"), b"\x08").unwrap();
    let replayed = replay(&daemon, "qera-out/current", &[]);
    replayed.assert_problems(&[
        "replay: shard shard-2.safetensors: ",
        "replay: shard shard-8.safetensors: ",
    ]);
    assert_eq!(replayed.layer(Q)["rows"], 900);
    assert_eq!(replayed.layer(Q)["verdict"], "other-rows");
    let notes = replayed.lines("notes");
    assert!(
        notes[0].contains("shard-7.safetensors repeats another"),
        "{notes:?}"
    );
}

#[test]
fn layers_without_rows_are_said() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&["--emit-base"])), 0, &[]);
    remove_shards(&daemon);
    let rows = TensorToWrite::f32(Q, &[300, 8], &sine_values(2400, 5.0));
    rename_in(&daemon, "only-q", &[rows]);
    let replayed = replay(&daemon, "qera-out/current", &[]);
    replayed.assert_holds();
    let unchecked = replayed.lines("not_checked");
    let said = format!("replay: {DOWN}: the shards hold no row of its input");
    assert_eq!(unchecked, [said]);
    // k reads what q reads.
    assert_eq!(replayed.layers().len(), 2);
    assert_eq!(replayed.layer(K)["rows"], 300);

    remove_file(&daemon, "only-q");
    let replayed = replay(&daemon, "qera-out/current", &[]);
    replayed.assert_problems(&["replay: no layer of the peft adapter was replayed"]);

    // Nor those that nobody asked for.
    write_rows_of_both_sites(&daemon, "again", 0.0);
    let replayed = replay(&daemon, "qera-out/current", &["--include", "*.down_proj"]);
    replayed.assert_holds();
    let unchecked = replayed.lines("not_checked");
    assert!(
        unchecked
            .iter()
            .all(|line| line.ends_with("no --include matches it"))
    );
    assert_eq!((replayed.layers().len(), unchecked.len()), (1, 2));
}

fn remove_file(daemon: &TestDaemon, name: &str) {
    fs::remove_file(shard_path(daemon, name)).unwrap();
}

/// An evaluation that is as long as the calibration is not taken for it; the same rows in other
/// files are.
#[test]
fn rows_are_known_by_what_they_are_and_not_by_how_many() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&["--emit-base"])), 0, &[]);
    remove_shards(&daemon);
    for shard in 0..4 {
        write_rows_of_both_sites(&daemon, &format!("eval-{shard}"), 0.5 + shard as f32);
    }
    let replayed = replay(&daemon, "qera-out/current", &[]);
    replayed.assert_holds();
    for layer in replayed.layers() {
        assert_eq!(
            (&layer["rows"], &layer["verdict"]),
            (&1200.into(), &"other-rows".into())
        );
        assert_eq!(layer["manifest"]["rows"], 1200);
    }
    for shard in 0..4 {
        remove_file(&daemon, &format!("eval-{shard}"));
    }
    for shard in 0..4 {
        // In another order, and as other files.
        let name = format!("again-{}", 3 - shard);
        write_rows_of_both_sites(&daemon, &name, shard as f32);
    }
    let replayed = replay(&daemon, "qera-out/current", &[]);
    replayed.assert_holds();
    assert_eq!(replayed.totals()["same"], 3);
}

/// Rows of which nothing comes say nothing of an adapter.
#[test]
fn zeros_alone_and_a_single_row_are_not_checked() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&["--emit-base"])), 0, &[]);
    remove_shards(&daemon);
    let rows = |deep: Vec<f32>| {
        [
            TensorToWrite::f32(Q, &[ROWS, 8], &sine_values(ROWS * 8, 0.0)),
            TensorToWrite::f32(DOWN, &[deep.len() / 12, 12], &deep),
        ]
    };
    for (deep, why) in [
        (
            vec![0.0; 12 * ROWS],
            "its 300 rows make no output and no error",
        ),
        (
            sine_values(12, 0.0),
            "a single row of its input says nothing",
        ),
    ] {
        rename_in(&daemon, "shard", &rows(deep));
        let replayed = replay(&daemon, "qera-out/current", &[]);
        replayed.assert_holds();
        let not_checked = replayed.lines("not_checked");
        let said = format!("replay: {DOWN}: {why}");
        assert!(
            not_checked.iter().any(|line| line.contains(&said)),
            "{not_checked:?}"
        );
        let layers = replayed.layers().iter();
        let names: Vec<_> = layers.map(|layer| layer["name"].clone()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
    // Where it is so of every layer, nothing was replayed.
    let single = replay(&daemon, "qera-out/current", &["--replay-rows", "1"]);
    single.assert_problems(&["no layer of the peft adapter was replayed"]);
}
