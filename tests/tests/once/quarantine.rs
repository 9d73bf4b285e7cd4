//! What bad activations get: set aside by name, and the rest counts.

use std::fs;

use qera_tests::daemon::expect;
use qera_tests::safetensors_file::{Metadata, TensorToWrite, write_safetensors};
use qera_tests::three_layers::{
    DOWN, K, Q, daemon_with_shards, once_with, shard_path, sine_values,
};

use super::BINARY;

#[test]
fn masked_rows_do_not_count() {
    let (plain, masked) = (daemon_with_shards(BINARY), daemon_with_shards(BINARY));
    for shard in 0..4 {
        // The same rows with rubbish between them, masked out.
        let rows = sine_values(300 * 8, shard as f32);
        let (mut mixed, mut mask) = (Vec::new(), Vec::new());
        for row in rows.chunks(8) {
            mixed.extend_from_slice(&[f32::NAN; 8]);
            mixed.extend_from_slice(row);
            mask.extend([0, 1]);
        }
        let deep = sine_values(300 * 12, 10.0 + shard as f32);
        let tensors = [
            TensorToWrite::f32(Q, &[600, 8], &mixed),
            TensorToWrite::u8(&format!("{Q}::mask"), &[600], &mask),
            TensorToWrite::f32(DOWN, &[300, 12], &deep),
        ];
        write_safetensors(
            &shard_path(&masked, &format!("shard-{shard}")),
            &tensors,
            &[],
        );
    }
    expect(&plain.run(&once_with(&[])), 0, &[]);
    expect(&masked.run(&once_with(&[])), 0, &[]);
    assert!(plain.adapter("qera-out").bytes == masked.adapter("qera-out").bytes);
}

/// A shard that is refused, and the message that follows.
struct BadShard {
    name: &'static str,
    tensors: Vec<TensorToWrite>,
    metadata: Vec<Metadata<'static>>,
    said: &'static [&'static str],
}

fn bad_shard(
    name: &'static str,
    tensors: impl Into<Vec<TensorToWrite>>,
    said: &'static [&'static str],
) -> BadShard {
    BadShard {
        name,
        tensors: tensors.into(),
        metadata: Vec::new(),
        said,
    }
}

impl BadShard {
    fn with_metadata(mut self, entry: Metadata<'static>) -> Self {
        self.metadata.push(entry);
        self
    }
}

/// Rows of [`Q`].
fn rows_of_q(values: &[f32]) -> TensorToWrite {
    TensorToWrite::f32(Q, &[300, 8], values)
}

/// A shard with one value replaced by another.
fn spoilt_at(row: usize, column: usize, value: f32) -> [TensorToWrite; 1] {
    let mut values = sine_values(300 * 8, 0.0);
    values[8 * row + column] = value;
    [rows_of_q(&values)]
}

/// A mask of 300 rows that count, one of them by another value.
fn mask_with(value: u8, row: usize) -> Vec<u8> {
    let mut mask = vec![1; 300];
    mask[row] = value;
    mask
}

/// Shards whose file is sound and whose content is not.
fn bad_contents() -> Vec<BadShard> {
    let good = sine_values(300 * 8, 0.0);
    let q = || rows_of_q(&good);
    let mask = |rows: usize| TensorToWrite::u8(&format!("{Q}::mask"), &[rows], &vec![1; rows]);
    let unknown = "model.layers.9.mlp.up_proj";
    let down = |value: &[f32]| TensorToWrite::f32(DOWN, &[1, 12], value);
    vec![
        bad_shard(
            "x-nan",
            spoilt_at(17, 3, f32::NAN),
            &[
                "x-nan.safetensors: tensor 'model.layers.0.self_attn.q_proj'",
                "row 17, column 3",
            ],
        ),
        bad_shard(
            "x-infinite",
            spoilt_at(18, 4, f32::INFINITY),
            &["row 18, column 4"],
        ),
        bad_shard("x-huge", spoilt_at(19, 5, 1e30), &["row 19, column 5"]),
        bad_shard(
            "x-width",
            [TensorToWrite::f32(Q, &[300, 7], &good[..2100])],
            &["x-width.safetensors", "[300, 7]", "in_features"],
        ),
        bad_shard(
            "x-unknown",
            [TensorToWrite::f32(unknown, &[1, 8], &good[..8])],
            &["'model.layers.9.mlp.up_proj' names no weight of the checkpoint"],
        ),
        bad_shard(
            "x-dtype",
            [TensorToWrite::new(Q, "I32", &[300, 8], vec![0; 9600])],
            &["has dtype I32"],
        ),
        bad_shard(
            "x-differ",
            [
                q(),
                TensorToWrite::f32(K, &[300, 8], &sine_values(2400, 0.5)),
            ],
            &[
                "x-differ.safetensors",
                "share one input but differ, first in row 0",
            ],
        ),
        bad_shard("x-mask", [q(), mask(299)], &["x-mask.safetensors", "[299]"]),
        bad_shard(
            "x-mask-value",
            [
                q(),
                TensorToWrite::u8(&format!("{Q}::mask"), &[300], &mask_with(255, 7)),
            ],
            &["x-mask-value.safetensors", "::mask': 255 for row 7"],
        ),
        bad_shard("x-orphan", [mask(1)], &["belongs to no tensor"]),
        bad_shard("x-model", [q()], &["qera.model is 'another'"])
            .with_metadata(Metadata::new("qera.model", "another")),
        bad_shard("x-tp", [down(&good[..12])], &["qera.tp_size 2"])
            .with_metadata(Metadata::new("qera.tp_size", "2")),
        bad_shard("x-shares", [q()], &["qera.shares"])
            .with_metadata(Metadata::new("qera.shares", "q_proj")),
        // Atomic: the good tensor of a shard with a bad one does not count either.
        bad_shard(
            "x-half",
            [q(), down(&[f32::NAN; 12])],
            &["x-half.safetensors: tensor 'model.layers.0.mlp.down_proj'"],
        ),
    ]
}

/// A file that is refused, and the message that follows.
struct BadFile {
    name: &'static str,
    bytes: Vec<u8>,
    said: &'static [&'static str],
}

/// Files that are no safetensors, or lie; `whole` is a good shard.
fn bad_files(whole: &[u8]) -> [BadFile; 5] {
    let file = |name, bytes: &[u8], said| BadFile {
        name,
        bytes: bytes.to_vec(),
        said,
    };
    let mut lying = whole.to_vec();
    let shape = whole.windows(7).position(|w| w == b"[300,8]").unwrap();
    lying[shape + 1..shape + 4].copy_from_slice(b"301");
    [
        file(
            "x-truncated",
            &whole[..whole.len() - 1],
            &["x-truncated.safetensors: truncated"],
        ),
        file("x-trailing", &[whole, &[0]].concat(), &["trailing bytes"]),
        file(
            "x-text",
            b"these are no activations",
            &["x-text.safetensors: not a safetensors file"],
        ),
        file("x-empty", b"", &["x-empty.safetensors: truncated: 0 bytes"]),
        file(
            "x-lying",
            &lying,
            &[
                "x-lying.safetensors: tensor 'model.layers.0.self_attn.q_proj'",
                "[301, 8]",
            ],
        ),
    ]
}

#[test]
fn bad_shards_are_quarantined_and_the_rest_counts() {
    let (daemon, clean) = (daemon_with_shards(BINARY), daemon_with_shards(BINARY));
    expect(&clean.run(&once_with(&[])), 0, &[]);
    let whole = fs::read(shard_path(&daemon, "shard-0")).unwrap();
    let (contents, files) = (bad_contents(), bad_files(&whole));
    for bad in &contents {
        write_safetensors(&shard_path(&daemon, bad.name), &bad.tensors, &bad.metadata);
    }
    for bad in &files {
        fs::write(shard_path(&daemon, bad.name), &bad.bytes).unwrap();
    }
    // No rows, claimed a million million times: neither an error nor a reason to allocate.
    let none = TensorToWrite::f32(Q, &[1 << 40, 0, 8], &[]);
    write_safetensors(&shard_path(&daemon, "y-none"), &[none], &[]);

    let run = daemon.run(&once_with(&[]));
    expect(&run, 3, &["4 shards folded, 19 quarantined"]);
    let said = contents.iter().map(|bad| bad.said);
    for said in said.chain(files.iter().map(|bad| bad.said)) {
        expect(&run, 3, said);
    }
    let (ours, expected) = (daemon.adapter("qera-out"), clean.adapter("qera-out"));
    assert!(ours.bytes == expected.bytes, "a refused shard left a trace");
    let quarantined = ours.manifest["inputs"]["quarantined"].as_array().unwrap();
    assert_eq!(quarantined.len(), 19);
}
