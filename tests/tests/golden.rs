//! The daemon on real layers, against the official implementation's results.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use faer::{Mat, MatRef, Side};
use qera_core::quantize::Mxint;
use qera_tests::daemon::{Run, TestDaemon, output_error};
use qera_tests::precision::{GOLDEN_OBJECTIVE, GOLDEN_OPTIMUM};
use qera_tests::reference::{LAYERS, ReferenceLayer, folder, load};

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
const FORMATS: [(&str, u32, usize); 3] = [
    ("mxint4_bs32", 4, 32),
    ("mxint3_bs32", 3, 32),
    ("mxint2_bs16", 2, 16),
];
/// Our method, and its name in golden.json.
const METHODS: [(&str, &str); 4] = [
    ("exact", "qera_exact"),
    ("approx", "qera_approx"),
    ("lqer", "lqer"),
    ("zeroquant-v2", "zeroquant_v2"),
];

/// The main job on what `write_input` wrote.
fn once(daemon: &TestDaemon, options: &[&str]) -> Run {
    let input = [
        "--once",
        "--watch",
        "activations",
        "--checkpoint",
        "checkpoint",
    ];
    daemon.run(&[&input, options].concat())
}

fn quantize(layer: &ReferenceLayer, bits: u32, block_size: usize) -> Vec<f32> {
    let mut quantized = vec![0.0; layer.weight.len()];
    Mxint::new(bits, block_size)
        .unwrap()
        .quantize_dequantize(&layer.weight, layer.in_features, &mut quantized)
        .unwrap();
    quantized
}

fn error(layer: &ReferenceLayer, bits: u32, block_size: usize) -> Vec<f32> {
    layer
        .weight
        .iter()
        .zip(quantize(layer, bits, block_size))
        .map(|(w, q)| w - q)
        .collect()
}

#[test]
fn quantized_weights_equal_the_official_ones() {
    let Some(folder) = folder("quantized_weights_equal_the_official_ones") else {
        return;
    };
    for name in LAYERS {
        let layer = load(&folder, name);
        for (format, bits, block_size) in FORMATS {
            let (ours, official) = (quantize(&layer, bits, block_size), layer.quantized(format));
            assert_eq!(ours.len(), official.len());
            let differing = ours
                .iter()
                .zip(&official)
                .filter(|(a, b)| (*a - *b).abs() > 0.0)
                .count();
            assert_eq!(differing, 0, "{name} {format}");
        }
    }
}

/// Every method, rank 8 and 32: sqrt(f) of the written factors in f32, from the definition, against
/// golden.json; and the order that theorem 1 promises.
#[test]
fn objectives_match_the_official_ones() {
    let Some(folder) = folder("objectives_match_the_official_ones") else {
        return;
    };
    for name in LAYERS {
        let layer = load(&folder, name);
        let daemon = TestDaemon::new(BINARY);
        let _ = layer.write_input(daemon.path(), 4096, 4);
        for (format, bits, block_size) in FORMATS {
            let error = error(&layer, bits, block_size);
            for rank in ["8", "32"] {
                let mut objectives = Vec::new();
                for (method, golden) in METHODS {
                    let quantizer = format!("mxint{bits}");
                    let out = format!("{format}-{method}-{rank}");
                    let run = once(
                        &daemon,
                        &[
                            "--out",
                            &out,
                            "--method",
                            method,
                            "--quantizer",
                            &quantizer,
                            "--block-size",
                            &block_size.to_string(),
                            "--rank",
                            rank,
                            "--shrinkage",
                            "0",
                            "--dtype",
                            "f32",
                        ],
                    );
                    assert_eq!(run.code, 0, "{}", run.log);
                    let adapter = daemon.adapter(&out);
                    let (a, b, r) = adapter.factors(&layer.module);
                    let ours =
                        output_error(&layer.rows, &error, layer.in_features, Some((&a, &b, r)))
                            .sqrt();
                    let official = &layer.golden["formats"][format];
                    let expected = official["methods"][golden][rank]["obj_f64"]
                        .as_f64()
                        .unwrap();
                    assert!(
                        (ours / expected - 1.0).abs() < GOLDEN_OBJECTIVE,
                        "{name} {format} {method} {rank}: {ours} {expected}"
                    );
                    let reported = adapter.layer(&layer.module)["error"]["rounded"]
                        .as_f64()
                        .unwrap();
                    assert!(
                        (reported.sqrt() / ours - 1.0).abs() < GOLDEN_OBJECTIVE,
                        "{method}: reported {reported}"
                    );
                    if method == "exact" {
                        let optimum = official["optimal_f64"][rank].as_f64().unwrap();
                        assert!(
                            ours <= optimum * (1.0 + GOLDEN_OPTIMUM),
                            "{name} {format} {rank}: {ours} {optimum}"
                        );
                    }
                    objectives.push(ours);
                }
                assert!(
                    objectives[1..].iter().all(|other| objectives[0] <= *other),
                    "{objectives:?}"
                );
            }
        }
    }
}

/// Few tokens: exact with the chosen shrinkage on rows that it never saw.
#[test]
fn few_rows_are_never_worse_than_approx() {
    let Some(folder) = folder("few_rows_are_never_worse_than_approx") else {
        return;
    };
    for name in LAYERS {
        let layer = load(&folder, name);
        let held_out = &layer.rows[2048 * layer.in_features..];
        for rows in [128, 512, 1024] {
            let daemon = TestDaemon::new(BINARY);
            let _ = layer.write_input(daemon.path(), rows, 4);
            for (quantizer, bits, rank) in
                [("mxint3", 3, "8"), ("mxint3", 3, "32"), ("mxint4", 4, "32")]
            {
                let error = error(&layer, bits, 32);
                let score = |method: &str| {
                    let out = format!("{method}-{bits}-{rank}");
                    let run = once(
                        &daemon,
                        &[
                            "--out",
                            &out,
                            "--method",
                            method,
                            "--quantizer",
                            quantizer,
                            "--rank",
                            rank,
                        ],
                    );
                    assert_eq!(run.code, 0, "{}", run.log);
                    let adapter = daemon.adapter(&out);
                    let origin = &adapter.layer(&layer.module)["shrinkage_origin"];
                    match method {
                        "exact" => assert_eq!(
                            *origin,
                            if rows < 1024 {
                                "few-blocks"
                            } else {
                                "held-out"
                            }
                        ),
                        _ => assert!(origin.is_null()),
                    }
                    let (a, b, r) = daemon.adapter(&out).factors(&layer.module);
                    output_error(held_out, &error, layer.in_features, Some((&a, &b, r)))
                };
                let (exact, approx) = (score("exact"), score("approx"));
                let none = output_error(held_out, &error, layer.in_features, None);
                assert!(
                    exact <= approx * 1.02,
                    "{name} {rows} {quantizer} {rank}: {exact} {approx}"
                );
                assert!(
                    exact < none,
                    "{name} {rows} {quantizer} {rank}: {exact} {none}"
                );
            }
        }
    }
}

/// An oracle of its own: the optimum from R in f64 by a dense eigensolver, at the daemon's default sizes.
#[test]
fn exact_reaches_the_optimum_of_the_rows_given() {
    let Some(folder) = folder("exact_reaches_the_optimum_of_the_rows_given") else {
        return;
    };
    let layer = load(&folder, "gate_proj_l15");
    let (m, rows) = (layer.in_features, 512); // fewer rows than channels: R is singular
    let daemon = TestDaemon::new(BINARY);
    let _ = layer.write_input(daemon.path(), rows, 2);
    let run = once(
        &daemon,
        &["--rank", "16", "--shrinkage", "0", "--dtype", "f32"],
    );
    assert_eq!(run.code, 0, "{}", run.log);
    let error = error(&layer, 4, 32);
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
    let (a, b, r) = daemon.adapter("qera-out").factors(&layer.module);
    let ours = output_error(&layer.rows[..rows * m], &error, m, Some((&a, &b, r)));
    assert!(ours <= optimum * (1.0 + GOLDEN_OPTIMUM), "{ours} {optimum}");
    let reported = daemon.adapter("qera-out").layer(&layer.module)["error"]["with"]
        .as_f64()
        .unwrap();
    assert!(
        (reported / optimum - 1.0).abs() < GOLDEN_OPTIMUM,
        "{reported} {optimum}"
    );
}
