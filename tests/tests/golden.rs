//! The daemon on real layers, against the official implementation's results.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use faer::{Mat, MatRef, Side};
use qera_tests::adapter::{LoraFactors, output_error};
use qera_tests::daemon::{EndedRun, TestDaemon};
use qera_tests::precision::{GOLDEN_OBJECTIVE, GOLDEN_OPTIMUM};
use qera_tests::quantization::quantized;
use qera_tests::reference::{
    GOLDEN_FORMATS, GoldenFormat, LAYERS, ReferenceLayer, reference_folder,
};
use qera_tests::tier;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
/// Our method, and its name in golden.json.
const METHODS: [(&str, &str); 4] = [
    ("exact", "qera_exact"),
    ("approx", "qera_approx"),
    ("lqer", "lqer"),
    ("zeroquant-v2", "zeroquant_v2"),
];

/// The main job on what `write_input` wrote.
fn once(daemon: &TestDaemon, options: &[&str]) -> EndedRun {
    let input = "--once --watch activations --checkpoint checkpoint";
    let options: Vec<&str> = input.split(' ').chain(options.iter().copied()).collect();
    daemon.run(&options)
}

#[test]
fn quantized_weights_equal_the_official_ones() {
    let Some(folder) = reference_folder("quantized_weights_equal_the_official_ones") else {
        return;
    };
    for name in LAYERS {
        let layer = ReferenceLayer::load(&folder, name);
        for format in GOLDEN_FORMATS {
            let (bits, block_size) = (format.element_bits, format.block_size);
            let ours = quantized(&layer.weight, layer.in_features, bits, block_size);
            let official = layer.quantized(format.name);
            assert_eq!(ours.len(), official.len());
            let differing = ours
                .iter()
                .zip(&official)
                .filter(|(a, b)| (*a - *b).abs() > 0.0)
                .count();
            assert_eq!(differing, 0, "{name} {}", format.name);
        }
    }
}

/// Every method, rank 8 and 32: sqrt(f) of the written factors in f32, from the definition, against
/// golden.json; and the order that theorem 1 promises.
#[test]
fn objectives_match_the_official_ones() {
    let Some(folder) = reference_folder("objectives_match_the_official_ones") else {
        return;
    };
    let formats = tier::cases(&GOLDEN_FORMATS[1..2], &GOLDEN_FORMATS);
    for name in LAYERS {
        let layer = ReferenceLayer::load(&folder, name);
        let daemon = TestDaemon::new(BINARY);
        layer.write_input(daemon.path(), 4096, 4);
        for format in formats {
            let error = layer.error(format.element_bits, format.block_size);
            for rank in ["8", "32"] {
                let objective = |(method, golden): (&str, &str)| {
                    let case = GoldenCase {
                        layer: &layer,
                        error: &error,
                        format: *format,
                        rank,
                        method,
                    };
                    case.check(&daemon, golden)
                };
                let objectives = METHODS.map(objective);
                let is_best = objectives[1..].iter().all(|other| objectives[0] <= *other);
                assert!(is_best, "{objectives:?}");
            }
        }
    }
}

/// One run of the daemon against golden.json.
struct GoldenCase<'a> {
    layer: &'a ReferenceLayer,
    error: &'a [f32],
    format: GoldenFormat,
    rank: &'a str,
    method: &'a str,
}

impl GoldenCase<'_> {
    /// sqrt(f) of what the daemon publishes, which is the official one's.
    fn check(&self, daemon: &TestDaemon, golden: &str) -> f64 {
        let (layer, rank, method) = (self.layer, self.rank, self.method);
        let quantizer = format!("mxint{}", self.format.element_bits);
        let block_size = self.format.block_size.to_string();
        let out = format!("{}-{method}-{rank}", self.format.name);
        let options = [
            ["--out", &out],
            ["--method", method],
            ["--quantizer", &quantizer],
            ["--block-size", &block_size],
            ["--rank", rank],
            ["--shrinkage", "0"],
            ["--dtype", "f32"],
        ];
        let run = once(daemon, &options.concat());
        assert_eq!(run.code, 0, "{}", run.log);
        let adapter = daemon.adapter(&out);
        let ours = self.objective(&adapter.factors(&layer.module));
        let official = &layer.golden["formats"][self.format.name];
        let expected = &official["methods"][golden][rank]["obj_f64"];
        let expected = expected.as_f64().unwrap();
        let case = format!("{} {out}", layer.module);
        assert!(
            (ours / expected - 1.0).abs() < GOLDEN_OBJECTIVE,
            "{case}: {ours} {expected}"
        );
        let reported = &adapter.layer(&layer.module)["error"]["rounded"];
        let reported = reported.as_f64().unwrap();
        assert!(
            (reported.sqrt() / ours - 1.0).abs() < GOLDEN_OBJECTIVE,
            "{case}: reported {reported}"
        );
        if method == "exact" {
            let optimum = official["optimal_f64"][rank].as_f64().unwrap();
            let allowed = optimum * (1.0 + GOLDEN_OPTIMUM);
            assert!(ours <= allowed, "{case}: {ours} {optimum}");
        }
        ours
    }

    fn objective(&self, factors: &LoraFactors) -> f64 {
        let (rows, m) = (&self.layer.rows, self.layer.in_features);
        output_error(rows, self.error, m, Some(factors)).sqrt()
    }
}

/// Few tokens: exact with the chosen shrinkage on rows that it never saw.
#[test]
fn few_rows_are_never_worse_than_approx() {
    let Some(folder) = reference_folder("few_rows_are_never_worse_than_approx") else {
        return;
    };
    let rows = tier::cases(&[128, 1024][..], &[128, 512, 1024]);
    // Bits and rank.
    let quantizers = tier::cases(&[(3, "32")][..], &[(3, "8"), (3, "32"), (4, "32")]);
    for name in LAYERS {
        let layer = ReferenceLayer::load(&folder, name);
        for rows in rows {
            let daemon = TestDaemon::new(BINARY);
            layer.write_input(daemon.path(), *rows, 4);
            for (bits, rank) in quantizers {
                check_few_rows(&daemon, &layer, *rows, *bits, rank);
            }
        }
    }
}

fn check_few_rows(daemon: &TestDaemon, layer: &ReferenceLayer, rows: usize, bits: u32, rank: &str) {
    let held_out = &layer.rows[2048 * layer.in_features..];
    let (error, quantizer) = (layer.error(bits, 32), format!("mxint{bits}"));
    let score = |method: &str| {
        let out = format!("{method}-{bits}-{rank}");
        let options = [
            ["--out", &out],
            ["--method", method],
            ["--quantizer", &quantizer],
            ["--rank", rank],
        ];
        let run = once(daemon, &options.concat());
        assert_eq!(run.code, 0, "{}", run.log);
        let adapter = daemon.adapter(&out);
        let origin = &adapter.layer(&layer.module)["shrinkage_origin"];
        let by_blocks = if rows < 1024 {
            "few-blocks"
        } else {
            "held-out"
        };
        match method {
            "exact" => assert_eq!(*origin, by_blocks),
            _ => assert!(origin.is_null()),
        }
        let factors = adapter.factors(&layer.module);
        output_error(held_out, &error, layer.in_features, Some(&factors))
    };
    let (exact, approx) = (score("exact"), score("approx"));
    let none = output_error(held_out, &error, layer.in_features, None);
    let case = format!("{} {rows} {quantizer} {rank}", layer.module);
    assert!(exact <= approx * 1.02, "{case}: {exact} {approx}");
    assert!(exact < none, "{case}: {exact} {none}");
}

/// An oracle of its own: the optimum from R in f64 by a dense eigensolver, at the daemon's default
/// sizes.
#[test]
fn exact_reaches_the_optimum_of_the_rows_given() {
    let Some(folder) = reference_folder("exact_reaches_the_optimum_of_the_rows_given") else {
        return;
    };
    let layer = ReferenceLayer::load(&folder, "gate_proj_l15");
    let (m, rows) = (layer.in_features, 512); // fewer rows than channels: R is singular
    let daemon = TestDaemon::new(BINARY);
    layer.write_input(daemon.path(), rows, 2);
    let run = once(
        &daemon,
        &["--rank", "16", "--shrinkage", "0", "--dtype", "f32"],
    );
    assert_eq!(run.code, 0, "{}", run.log);
    let error = layer.error(4, 32);
    let x: Vec<f64> = layer.rows[..rows * m]
        .iter()
        .map(|v| f64::from(*v))
        .collect();
    let e: Vec<f64> = error.iter().map(|v| f64::from(*v)).collect();
    let y = MatRef::from_row_major_slice(&x, rows, m)
        * MatRef::from_column_major_slice(&e, m, error.len() / m);
    let gram: Mat<f64> = &y * y.transpose(); // the eigenvalues of G, as a rows x rows problem
    let eigenvalues = gram.self_adjoint_eigenvalues(Side::Lower).unwrap();
    let optimum: f64 = eigenvalues[..rows - 16].iter().sum::<f64>() / rows as f64;
    let factors = daemon.adapter("qera-out").factors(&layer.module);
    let ours = output_error(&layer.rows[..rows * m], &error, m, Some(&factors));
    assert!(ours <= optimum * (1.0 + GOLDEN_OPTIMUM), "{ours} {optimum}");
    let reported = daemon.adapter("qera-out").layer(&layer.module)["error"]["with"]
        .as_f64()
        .unwrap();
    assert!(
        (reported / optimum - 1.0).abs() < GOLDEN_OPTIMUM,
        "{reported} {optimum}"
    );
}
