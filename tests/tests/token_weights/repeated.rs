//! Whole weights are repeated rows, and only how weights compare counts.

use std::fs;

use faer::MatRef;
use qera_tests::adapter::LoraFactors;
use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::imatrix_file::read_gguf_imatrix;
use qera_tests::output_folder::statistics_files;
use safetensors::SafeTensors;

use super::{Rows, assert_near, number, once, state_version};
use qera_tests::three_layers::{DOWN, K, Q};

const PATTERN: [f32; 3] = [1.0, 3.0, 2.0];

/// A tensor of each site's statistics.
fn statistics(daemon: &TestDaemon, name: &str) -> Vec<Vec<f64>> {
    let files = statistics_files(&daemon.path().join("qera-out/state"));
    let read = |bytes: &[u8]| {
        let file = SafeTensors::deserialize(bytes).unwrap();
        let data = file.tensor(name).unwrap().data().to_vec();
        let numbers = data.as_chunks::<8>().0.iter();
        numbers.map(|le| f64::from_le_bytes(*le)).collect()
    };
    files.iter().map(|file| read(&file.bytes)).collect()
}

/// How many numbers each site has.
fn lengths(sites: &[Vec<f64>]) -> Vec<usize> {
    sites.iter().map(Vec::len).collect()
}

/// A B, in_features x out_features.
fn product(factors: &LoraFactors, in_features: usize) -> faer::Mat<f64> {
    let wide = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    let (a, b) = (wide(&factors.lora_a), wide(&factors.lora_b));
    let outputs = b.len() / factors.rank;
    let a = MatRef::from_row_major_slice(&a, factors.rank, in_features);
    let b = MatRef::from_row_major_slice(&b, outputs, factors.rank);
    a.transpose() * b.transpose()
}

#[test]
fn whole_weights_are_repeated_rows() {
    for method in ["exact", "approx", "lqer", "lqer-mean"] {
        let more = ["--method", method, "--shrinkage", "0.2", "--dtype", "f32"];
        let more = if method == "exact" {
            &more[..]
        } else {
            &[&more[..2], &more[4..]].concat()[..]
        };
        let weighted = once(Rows::four().map(|rows| rows.weighted(&PATTERN)), more);
        let repeated = once(Rows::four().map(|rows| rows.repeated(&PATTERN)), more);
        assert_eq!((state_version(&weighted), state_version(&repeated)), (4, 3));
        for (name, most) in [
            ("mean", 1e-13),
            ("m2", 1e-13),
            ("mean_abs", 1e-13),
            ("batch_max", 1e-13),
        ] {
            let (ours, theirs) = (statistics(&weighted, name), statistics(&repeated, name));
            assert_eq!(lengths(&ours), lengths(&theirs), "{name}");
            for (ours, theirs) in ours.iter().flatten().zip(theirs.iter().flatten()) {
                let error = (ours - theirs).abs();
                assert!(
                    error <= most * theirs.abs().max(1.0),
                    "{name}: {ours} {theirs}"
                );
            }
        }
        if method == "exact" {
            let of = |daemon| statistics(daemon, "autocorrelation");
            let (ours, theirs) = (of(&weighted), of(&repeated));
            assert_eq!(lengths(&ours), [12 * 13 / 2, 8 * 9 / 2]);
            assert_eq!(lengths(&ours), lengths(&theirs));
            for (ours, theirs) in ours.iter().zip(&theirs) {
                let largest = theirs.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
                for (a, b) in ours.iter().zip(theirs) {
                    assert!((a - b).abs() <= 1e-6 * largest, "{a} {b}");
                }
            }
        }
        for (layer, width) in [(Q, 8), (K, 8), (DOWN, 12)] {
            let both = [&weighted, &repeated];
            let [ours, theirs] =
                both.map(|of| product(&of.adapter("qera-out").factors(layer), width));
            let difference = (&ours - &theirs).norm_l2();
            assert!(
                difference <= 1e-4 * theirs.norm_l2(),
                "{method} {layer}: {difference:e}"
            );
            for error in ["/error/without", "/error/with", "/error/rounded"] {
                let [ours, theirs] = both.map(|of| number(of, layer, error));
                assert_near(ours, theirs, 1e-4, &format!("{method} {layer} {error}"));
            }
            let rows = both.map(|of| of.adapter("qera-out").layer(layer)["rows"].clone());
            assert_eq!(rows, [1200, 2400], "rows are counted");
        }
    }
}

/// An imatrix of a state with weights has the means of repeated rows, over the rows that came.
#[test]
fn an_exported_imatrix_has_means_by_weight() {
    let exported = |daemon: &TestDaemon| {
        let out = ["--state", "qera-out/state", "--out", "out.gguf"];
        let named = ["--checkpoint", "checkpoint"];
        let export = [&["export", "imatrix"], &out[..], &named].concat();
        expect(&daemon.run(&export), 0, &["3 entries; 4 shards"]);
        read_gguf_imatrix(&fs::read(daemon.path().join("out.gguf")).unwrap()).tensors
    };
    let weighted = exported(&once(Rows::four().map(|rows| rows.weighted(&PATTERN)), &[]));
    let repeated = exported(&once(Rows::four().map(|rows| rows.repeated(&PATTERN)), &[]));
    assert_eq!((weighted.len(), repeated.len()), (9, 9));
    for (name, ours) in weighted {
        let theirs = &repeated[&name].values;
        assert_eq!(ours.values.len(), theirs.len(), "{name}");
        let largest = theirs.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        for (ours, theirs) in ours.values.iter().zip(theirs) {
            // 1200 rows of 2400.
            let error = (2.0 * ours - theirs).abs();
            assert!(error <= 1e-6 * largest, "{name}: {ours} {theirs}");
        }
    }
}

/// A power of 4 common to all weights changes no bit, whatever is chosen by N or on rows; another
/// factor none that shows.
#[test]
fn a_common_factor_changes_nothing() {
    let of = |factor: f32, more: &[&str]| {
        let pattern = [0.25, 3.0, 1.0, 0.3, 0.7].map(|w| factor * w);
        once(Rows::four().map(|rows| rows.weighted(&pattern)), more)
    };
    let projected = ["--rounding", "projected", "--rounding-shrinkage", "auto"];
    for more in [&[][..], &["--method", "approx"], &projected] {
        let [one, larger] = [1.0, 1024.0].map(|factor| of(factor, more).adapter("qera-out"));
        assert!(one.bytes == larger.bytes, "{more:?}");
        assert_eq!(one.layers(), larger.layers(), "{more:?}");
    }
    let [one, third] = [1.0, 3.0].map(|factor| of(factor, &[]));
    for layer in [Q, K, DOWN] {
        for field in ["/error/with", "/shrinkage", "/held_out_error/mean"] {
            let [one, third] = [&one, &third].map(|of| number(of, layer, field));
            assert_near(third, one, 1e-4, field);
        }
    }
}
