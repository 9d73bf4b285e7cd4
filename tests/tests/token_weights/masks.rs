//! Masks are weights of 0 and 1.

use qera_tests::daemon::TestDaemon;
use qera_tests::output_folder::statistics_files;
use qera_tests::safetensors_file::TensorToWrite;

use super::{BINARY, Rows, once, state_version, weights_of};
use qera_tests::three_layers::{Q, once_with, rename_in};

/// Same adapter, same statistics, bit for bit, in a state that needs no weights.
fn assert_same(weighted: &TestDaemon, plain: &TestDaemon) {
    let adapter = |daemon: &TestDaemon| daemon.adapter("qera-out");
    let (ours, theirs) = (adapter(weighted), adapter(plain));
    assert!(
        ours.bytes == theirs.bytes,
        "adapter_model.safetensors differs"
    );
    assert_eq!(ours.layers(), theirs.layers());
    let files = |daemon: &TestDaemon| statistics_files(&daemon.path().join("qera-out/state"));
    let (ours, theirs) = (files(weighted), files(plain));
    assert_eq!((ours.len(), theirs.len()), (2, 2));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert!(ours.bytes == theirs.bytes, "{} differs", ours.name);
    }
    assert_eq!(state_version(weighted), 3);
}

/// Rows that are left out may hold anything.
#[test]
fn weights_of_0_and_1_are_a_mask() {
    let pattern = [1.0, 0.0, 1.0, 1.0, 0.0];
    let with = |weighted: bool| {
        let shards = Rows::four().map(|rows| {
            let weights = rows.weights(&pattern);
            let mask: Vec<u8> = weights.iter().map(|w| u8::from(*w > 0.0)).collect();
            let mut tensors = rows.tensors(|key, shape| {
                Some(if weighted {
                    weights_of(key, shape, &weights)
                } else {
                    TensorToWrite::u8(&format!("{key}::mask"), shape, &mask)
                })
            });
            let left_out = mask.iter().position(|m| *m == 0).unwrap();
            let first = left_out * 8 * size_of::<f32>();
            tensors[0].bytes[first..first + 4].copy_from_slice(&f32::NAN.to_le_bytes());
            tensors
        });
        once(shards.collect::<Vec<_>>().into_iter(), &[])
    };
    let (weighted, masked) = (with(true), with(false));
    assert_same(&weighted, &masked);
    let rows = weighted.adapter("qera-out").layer(Q)["rows"].clone();
    assert_eq!(rows, 4 * 300 * 3 / 5, "rows of weight 0 are not counted");
}

#[test]
fn weights_of_1_are_none() {
    let of = |weighted: bool| {
        let shards = Rows::four().map(|rows| match weighted {
            true => rows.weighted(&[1.0]),
            false => rows.tensors(|_, _| None),
        });
        once(shards, &[])
    };
    assert_same(&of(true), &of(false));
}

/// [rows, in_features] with [rows] too; a shard of which no row counts changes nothing.
#[test]
fn flat_rows_and_shards_without_weight() {
    let rows = qera_tests::three_layers::sine_values(300 * 8, 0.5);
    let weights: Vec<f32> = (0..300)
        .map(|row| if row < 200 { 1.0 } else { 0.0 })
        .collect();
    let flat = |weights: &[f32]| {
        vec![
            TensorToWrite::f32(Q, &[300, 8], &rows),
            weights_of(Q, &[300], weights),
        ]
    };
    let with_nothing = once([flat(&weights), flat(&[0.0; 300])].into_iter(), &[]);
    let cut = vec![TensorToWrite::f32(Q, &[200, 8], &rows[..200 * 8])];
    let plain = once([cut].into_iter(), &[]);
    let (ours, theirs) = (with_nothing.adapter("qera-out"), plain.adapter("qera-out"));
    assert!(ours.bytes == theirs.bytes);

    let nothing = qera_tests::three_layers::daemon_without_shards(BINARY);
    rename_in(&nothing, "shard-0", &flat(&[0.0; 300]));
    let run = nothing.run(&once_with(&[]));
    qera_tests::daemon::expect(&run, 1, &["nothing was published"]);
}
