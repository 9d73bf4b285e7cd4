//! The daemon as a process: the command line's contract on the fixture and on small made checkpoints.

use std::fs;
use std::path::{Path, PathBuf};

use qera_tests::daemon::{Run, TestDaemon, output_error};
use qera_tests::shards::{TensorToWrite, write};

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
const Q: &str = "model.layers.0.self_attn.q_proj";
const K: &str = "model.layers.0.self_attn.k_proj";
const DOWN: &str = "model.layers.0.mlp.down_proj";
const BASIC: [&str; 9] = [
    "--once",
    "--watch",
    "activations",
    "--checkpoint",
    "checkpoint",
    "--rank",
    "2",
    "--block-size",
    "4",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

fn wave(count: usize, phase: f32) -> Vec<f32> {
    (0..count)
        .map(|i| (i as f32 * 0.7 + phase).sin() * (1.0 + (i % 5) as f32))
        .collect()
}

/// q and k on one site of width 8, down on a site of width 12, one norm, one embedding.
fn small() -> TestDaemon {
    let daemon = TestDaemon::new(BINARY);
    fs::create_dir(daemon.path().join("activations")).unwrap();
    write_checkpoint(&daemon.path().join("checkpoint"), &wave(48, 0.0));
    for shard in 0..4 {
        let rows = wave(300 * 8, shard as f32);
        let deep = wave(300 * 12, 10.0 + shard as f32);
        let tensors = [
            TensorToWrite::f32(Q, &[300, 8], &rows),
            TensorToWrite::f32(DOWN, &[300, 12], &deep),
        ];
        write(
            &shard_path(&daemon, &format!("shard-{shard}")),
            &tensors,
            &[],
        );
    }
    daemon
}

fn write_checkpoint(folder: &Path, q: &[f32]) {
    fs::create_dir_all(folder).unwrap();
    let tensors = [
        TensorToWrite::f32(&format!("{Q}.weight"), &[6, 8], q),
        TensorToWrite::f32(&format!("{K}.weight"), &[4, 8], &wave(32, 1.0)),
        TensorToWrite::f32(&format!("{DOWN}.weight"), &[8, 12], &wave(96, 2.0)),
        TensorToWrite::f32("model.norm.weight", &[8], &wave(8, 3.0)),
        TensorToWrite::f32("model.embed_tokens.weight", &[10, 8], &wave(80, 4.0)),
    ];
    write(&folder.join("model.safetensors"), &tensors, &[]);
}

fn shard_path(daemon: &TestDaemon, name: &str) -> PathBuf {
    daemon
        .path()
        .join("activations")
        .join(format!("{name}.safetensors"))
}

fn with(extra: &[&'static str]) -> Vec<&'static str> {
    BASIC.iter().copied().chain(extra.iter().copied()).collect()
}

fn expect(run: &Run, code: i32, said: &[&str]) {
    assert_eq!(run.code, code, "{}", run.log);
    for words in said {
        assert!(run.log.contains(words), "'{words}' is not in:\n{}", run.log);
    }
}

#[test]
fn the_fixture_gives_the_same_bytes_for_any_number_of_threads() {
    let daemon = TestDaemon::new(BINARY);
    let (watch, model) = (fixtures().join("activations"), fixtures().join("model"));
    let run = |threads: &str, out: &str| {
        daemon.run(&[
            "--once",
            "--watch",
            watch.to_str().unwrap(),
            "--checkpoint",
            model.to_str().unwrap(),
            "--out",
            out,
            "--threads",
            threads,
            "--rank",
            "8",
            "--quantizer",
            "mxint3",
        ])
    };
    expect(
        &run("1", "one"),
        0,
        &["28 layers corrected", "8 shards folded, 0 quarantined"],
    );
    expect(&run("2", "two"), 0, &[]);
    let (one, two) = (daemon.adapter("one"), daemon.adapter("two"));
    assert!(one.bytes == two.bytes, "adapter_model.safetensors differs");
    assert_eq!(one.config, two.config);
    assert_eq!(one.config["r"], 8);
    assert_eq!(one.config["lora_alpha"], 8);
    for layer in one.manifest["layers"].as_array().unwrap() {
        let error = |key: &str| layer["error"][key].as_f64().unwrap();
        assert!(error("with") < error("without"), "{layer}");
        assert!(error("rounded") <= error("with") * 1.001, "{layer}");
        let held_out = &layer["held_out_error"];
        assert!(
            held_out["mean"].as_f64().unwrap() < held_out["mean_without"].as_f64().unwrap(),
            "{held_out}"
        );
        assert!(held_out["half_width"].as_f64().unwrap() > 0.0);
        assert!(held_out["rows_solved"].as_u64().unwrap() < layer["rows"].as_u64().unwrap());
        assert_eq!(layer["status"], "solved");
    }
    assert_eq!(one.manifest["inputs"]["full_precision_model"], true);
}

#[test]
fn every_second_run_is_a_new_generation() {
    let daemon = small();
    expect(&daemon.run(&with(&[])), 0, &["published generation 1"]);
    let first = fs::read(
        daemon
            .path()
            .join("qera-out/current/adapter_model.safetensors"),
    )
    .unwrap();
    expect(
        &daemon.run(&with(&["--method", "approx"])),
        0,
        &["published generation 2"],
    );
    assert_eq!(
        fs::read_link(daemon.path().join("qera-out/current")).unwrap(),
        Path::new("generations/000002")
    );
    let kept = fs::read(
        daemon
            .path()
            .join("qera-out/generations/000001/adapter_model.safetensors"),
    )
    .unwrap();
    assert_eq!(first, kept);
    let left: Vec<_> = fs::read_dir(daemon.path().join("qera-out/generations"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 2, "nothing half done is left: {left:?}");
}

#[test]
fn ranks_are_padded_to_one_and_reported() {
    let daemon = small();
    let run = daemon.run(&with(&[
        "--rank-for",
        "*.q_proj=5",
        "--rank-for",
        "*.k_proj=100",
    ]));
    expect(
        &run,
        0,
        &["rank 100 is above min(in_features, out_features): 4 is used"],
    );
    let adapter = daemon.adapter("qera-out");
    assert_eq!(adapter.config["r"], 5);
    assert_eq!(adapter.layer(K)["rank_asked"], 100);
    let (a, b, rank) = adapter.factors(DOWN);
    assert_eq!(
        (rank, adapter.layer(DOWN)["rank_used"].as_u64()),
        (5, Some(2))
    );
    assert!(
        a[2 * 12..]
            .iter()
            .chain(b.chunks(5).flat_map(|row| &row[2..]))
            .all(|x| x.abs() <= 0.0),
        "padding"
    );
    assert!(b.chunks(5).any(|row| row[1].abs() > 0.0));
}

#[test]
fn masked_rows_do_not_count() {
    let (plain, masked) = (small(), small());
    for shard in 0..4 {
        // The same rows with rubbish between them, masked out.
        let rows = wave(300 * 8, shard as f32);
        let (mut mixed, mut mask) = (Vec::new(), Vec::new());
        for row in rows.chunks(8) {
            mixed.extend_from_slice(&[f32::NAN; 8]);
            mixed.extend_from_slice(row);
            mask.extend([0, 1]);
        }
        let deep = wave(300 * 12, 10.0 + shard as f32);
        let tensors = [
            TensorToWrite::f32(Q, &[600, 8], &mixed),
            TensorToWrite::u8(&format!("{Q}::mask"), &[600], &mask),
            TensorToWrite::f32(DOWN, &[300, 12], &deep),
        ];
        write(
            &shard_path(&masked, &format!("shard-{shard}")),
            &tensors,
            &[],
        );
    }
    expect(&plain.run(&with(&[])), 0, &[]);
    expect(&masked.run(&with(&[])), 0, &[]);
    assert!(plain.adapter("qera-out").bytes == masked.adapter("qera-out").bytes);
}

#[test]
fn bad_shards_are_quarantined_and_the_rest_counts() {
    let daemon = small();
    let clean = small();
    expect(&clean.run(&with(&[])), 0, &[]);
    let good = wave(300 * 8, 0.0);
    let q = |values: &[f32]| TensorToWrite::f32(Q, &[300, 8], values);
    let at = |name: &str| shard_path(&daemon, name);
    let mut nan = good.clone();
    nan[8 * 17 + 3] = f32::NAN;
    write(&at("x-nan"), &[q(&nan)], &[]);
    let mut infinite = good.clone();
    infinite[8 * 18 + 4] = f32::INFINITY;
    write(&at("x-infinite"), &[q(&infinite)], &[]);
    let mut huge = good.clone();
    huge[8 * 19 + 5] = 1e30;
    write(&at("x-huge"), &[q(&huge)], &[]);
    write(
        &at("x-width"),
        &[TensorToWrite::f32(Q, &[300, 7], &good[..2100])],
        &[],
    );
    write(
        &at("x-unknown"),
        &[TensorToWrite::f32(
            "model.layers.9.mlp.up_proj",
            &[1, 8],
            &good[..8],
        )],
        &[],
    );
    write(
        &at("x-dtype"),
        &[TensorToWrite::new(Q, "I32", &[300, 8], vec![0; 9600])],
        &[],
    );
    write(
        &at("x-differ"),
        &[q(&good), TensorToWrite::f32(K, &[300, 8], &wave(2400, 0.5))],
        &[],
    );
    write(
        &at("x-mask"),
        &[
            q(&good),
            TensorToWrite::u8(&format!("{Q}::mask"), &[299], &[1; 299]),
        ],
        &[],
    );
    write(
        &at("x-orphan"),
        &[TensorToWrite::u8(&format!("{Q}::mask"), &[1], &[1])],
        &[],
    );
    write(&at("x-model"), &[q(&good)], &[("qera.model", "another")]);
    write(
        &at("x-tp"),
        &[TensorToWrite::f32(DOWN, &[1, 12], &good[..12])],
        &[("qera.tp_size", "2")],
    );
    write(&at("x-shares"), &[q(&good)], &[("qera.shares", "q_proj")]);
    // Atomic: the good tensor of a shard with a bad one does not count either.
    write(
        &at("x-half"),
        &[
            q(&good),
            TensorToWrite::f32(DOWN, &[1, 12], &[f32::NAN; 12]),
        ],
        &[],
    );
    let whole = fs::read(at("shard-0")).unwrap();
    fs::write(at("x-truncated"), &whole[..whole.len() - 1]).unwrap();
    fs::write(at("x-trailing"), [&whole[..], &[0]].concat()).unwrap();
    fs::write(at("x-text"), "these are no activations").unwrap();
    fs::write(at("x-empty"), "").unwrap();
    let lie = String::from_utf8_lossy(&whole).contains("[300,8]");
    assert!(lie);
    let lying: Vec<u8> = whole.windows(1).flatten().copied().collect();
    let position = whole.windows(7).position(|w| w == b"[300,8]").unwrap();
    let mut lying = lying;
    lying[position + 1..position + 4].copy_from_slice(b"301");
    fs::write(at("x-lying"), lying).unwrap();

    let run = daemon.run(&with(&[]));
    let infinity = "row 18, column 4";
    expect(
        &run,
        3,
        &[
            "x-nan.safetensors: tensor 'model.layers.0.self_attn.q_proj'",
            "row 17, column 3",
            infinity,
            "row 19, column 5",
            "x-width.safetensors",
            "[300, 7]",
            "in_features",
            "'model.layers.9.mlp.up_proj' names no linear layer",
            "has dtype I32",
            "x-differ.safetensors",
            "share one input but differ, first in row 0",
            "x-mask.safetensors",
            "[299]",
            "belongs to no tensor",
            "qera.model is 'another'",
            "qera.tp_size 2",
            "qera.shares",
            "x-half.safetensors: tensor 'model.layers.0.mlp.down_proj'",
            "x-truncated.safetensors: truncated",
            "trailing bytes",
            "x-text.safetensors: not a safetensors file",
            "x-empty.safetensors: truncated: 0 bytes",
            "x-lying.safetensors: tensor 'model.layers.0.self_attn.q_proj'",
            "[301, 8]",
            "4 shards folded, 18 quarantined",
        ],
    );
    let (ours, expected) = (daemon.adapter("qera-out"), clean.adapter("qera-out"));
    assert!(ours.bytes == expected.bytes, "a refused shard left a trace");
    assert_eq!(
        ours.manifest["inputs"]["quarantined"]
            .as_array()
            .unwrap()
            .len(),
        18
    );
}

#[test]
fn nothing_usable_publishes_nothing() {
    let daemon = small();
    for shard in 0..4 {
        fs::write(
            shard_path(&daemon, &format!("shard-{shard}")),
            "garbage that is longer than a header",
        )
        .unwrap();
    }
    expect(
        &daemon.run(&with(&[])),
        1,
        &["none of its 4 shards could be used"],
    );
    assert!(!daemon.path().join("qera-out/current").exists());
}

#[test]
fn starved_layers_are_listed_with_zero_factors() {
    let daemon = small();
    for shard in 0..4 {
        let rows = wave(300 * 8, shard as f32);
        write(
            &shard_path(&daemon, &format!("shard-{shard}")),
            &[TensorToWrite::f32(Q, &[300, 8], &rows)],
            &[],
        );
    }
    expect(&daemon.run(&with(&[])), 0, &["1 starved", "no row seen"]);
    let adapter = daemon.adapter("qera-out");
    assert_eq!(adapter.layer(DOWN)["status"], "starved");
    assert_eq!(adapter.layer(K)["status"], "solved", "k shares q's input");
    let (a, b, _) = adapter.factors(DOWN);
    assert!(a.iter().chain(&b).all(|x| x.abs() <= 0.0));
}

/// A generation of zeros must not take the place of a good one.
#[test]
fn an_empty_folder_publishes_nothing() {
    let daemon = small();
    expect(&daemon.run(&with(&[])), 0, &["published generation 1"]);
    for shard in 0..4 {
        fs::remove_file(shard_path(&daemon, &format!("shard-{shard}"))).unwrap();
    }
    expect(
        &daemon.run(&with(&[])),
        1,
        &["activations: holds no shard", "nothing was published"],
    );
    assert_eq!(
        fs::read_link(daemon.path().join("qera-out/current")).unwrap(),
        Path::new("generations/000001")
    );
}

#[test]
fn degenerate_inputs_stay_finite() {
    let daemon = small();
    for shard in 0..4 {
        // Two rows for eight channels, half of them dead; the other site is all zero.
        let mut rows = wave(16, shard as f32);
        rows.iter_mut()
            .enumerate()
            .filter(|(i, _)| i % 2 == 0)
            .for_each(|(_, x)| *x = 0.0);
        let tensors = [
            TensorToWrite::f32(Q, &[2, 8], &rows),
            TensorToWrite::f32(DOWN, &[2, 12], &[0.0; 24]),
        ];
        write(
            &shard_path(&daemon, &format!("shard-{shard}")),
            &tensors,
            &[],
        );
    }
    for method in [
        "exact",
        "approx",
        "lqer",
        "lqer-mean",
        "zeroquant-v2",
        "w-only",
    ] {
        for shrinkage in ["auto", "0"] {
            let arguments = [
                &BASIC[..],
                &[
                    "--method",
                    method,
                    "--shrinkage",
                    shrinkage,
                    "--rank-for",
                    "*q_proj=50",
                ],
            ]
            .concat();
            let run = daemon.run(&arguments);
            expect(&run, 0, &[]);
            if method == "exact" {
                expect(
                    &run,
                    0,
                    &[
                        "4 channels of 8 never differ from zero",
                        "all 12 channels are zero",
                    ],
                );
            }
            let adapter = daemon.adapter("qera-out");
            for module in [Q, K, DOWN] {
                let (a, b, _) = adapter.factors(module);
                assert!(
                    a.iter().chain(&b).all(|x| x.is_finite()),
                    "{method} {module}"
                );
            }
            assert_eq!(adapter.layer(DOWN)["status"], "nothing-to-correct");
            let error = &adapter.layer(Q)["error"];
            assert!(
                error["with"].as_f64().unwrap()
                    <= error["without"].as_f64().unwrap() * (1.0 + 1e-9),
                "{method}"
            );
        }
    }
}

#[test]
fn three_shapes_and_three_types_of_the_same_rows_agree() {
    // Integers survive every type.
    let rows: Vec<f32> = (0..256 * 8).map(|i| ((i * 37) % 13) as f32 - 6.0).collect();
    let mut adapters = Vec::new();
    for kind in 0..3 {
        let daemon = small();
        for shard in 0..4 {
            let part = &rows[shard * 512..(shard + 1) * 512];
            let tensor = match kind {
                0 => TensorToWrite::f32(Q, &[64, 8], part),
                1 => TensorToWrite::bf16(Q, &[64, 8], part),
                _ => TensorToWrite::f16(Q, &[64, 8], part),
            };
            write(
                &shard_path(&daemon, &format!("shard-{shard}")),
                &[tensor],
                &[],
            );
        }
        expect(&daemon.run(&with(&[])), 0, &[]);
        adapters.push(daemon.adapter("qera-out").bytes);
    }
    assert!(adapters.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_wide_range_is_written_f32_and_says_so() {
    let daemon = small();
    write_checkpoint(
        &daemon.path().join("checkpoint"),
        &wave(48, 0.0).iter().map(|w| w * 1e12).collect::<Vec<_>>(),
    );
    let run = daemon.run(&with(&["--dtype", "f16"]));
    expect(
        &run,
        0,
        &["q_proj: written f32: its factors overflow in f16"],
    );
    assert_eq!(daemon.adapter("qera-out").layer(Q)["dtype"], "F32");
    assert_eq!(daemon.adapter("qera-out").layer(DOWN)["dtype"], "F16");
}

#[test]
fn the_manifest_tells_the_error_of_what_was_written() {
    let daemon = small();
    expect(
        &daemon.run(&with(&["--quantizer", "mxint2", "--shrinkage", "0.3"])),
        0,
        &[],
    );
    let adapter = daemon.adapter("qera-out");
    let quantizer = qera_core::quantize::Mxint::new(2, 4).unwrap();
    let (weight, mut quantized) = (wave(48, 0.0), vec![0.0; 48]);
    quantizer
        .quantize_dequantize(&weight, 8, &mut quantized)
        .unwrap();
    let error: Vec<f32> = weight.iter().zip(&quantized).map(|(w, q)| w - q).collect();
    let rows: Vec<f32> = (0..4)
        .flat_map(|shard| wave(300 * 8, shard as f32))
        .collect();
    let (a, b, rank) = adapter.factors(Q);
    let record = adapter.layer(Q);
    let reported = |key: &str| record["error"][key].as_f64().unwrap();
    let with = output_error(&rows, &error, 8, Some((&a, &b, rank)));
    let without = output_error(&rows, &error, 8, None);
    let power = output_error(&rows, &weight, 8, None);
    for (name, ours, truth) in [
        ("rounded", reported("rounded"), with),
        ("without", reported("without"), without),
        ("power", record["output_power"].as_f64().unwrap(), power),
    ] {
        assert!((ours / truth - 1.0).abs() < 1e-5, "{name}: {ours} {truth}");
    }
    assert_eq!(record["shrinkage"], 0.3);
    assert_eq!(record["rows"], 1200);
}

#[test]
fn shares_in_the_metadata_join_sites() {
    let daemon = small();
    let folder = daemon.path().join("checkpoint");
    let tensors = [
        TensorToWrite::f32("enc.left.weight", &[6, 8], &wave(48, 0.0)),
        TensorToWrite::f32("enc.right.weight", &[4, 8], &wave(32, 1.0)),
    ];
    write(&folder.join("model.safetensors"), &tensors, &[]);
    for shard in 0..4 {
        let rows = TensorToWrite::f32("enc.left", &[300, 8], &wave(300 * 8, shard as f32));
        write(
            &shard_path(&daemon, &format!("shard-{shard}")),
            &[rows],
            &[],
        );
    }
    expect(
        &daemon.run(&with(&[])),
        0,
        &["2 layers on 2 sites", "1 starved"],
    );
    for shard in 0..4 {
        let rows = TensorToWrite::f32("enc.left", &[300, 8], &wave(300 * 8, shard as f32));
        let shares = [("qera.shares", r#"[["enc.left","enc.right"]]"#)];
        write(
            &shard_path(&daemon, &format!("shard-{shard}")),
            &[rows],
            &shares,
        );
    }
    expect(
        &daemon.run(&with(&[])),
        0,
        &["2 layers on 1 sites", "0 starved"],
    );
}

#[test]
fn excluded_modules_are_ignored_and_counted() {
    let daemon = small();
    expect(
        &daemon.run(&with(&["--exclude", "*.down_proj"])),
        0,
        &[
            "2 layers on 1 sites",
            "1 keys of modules not selected ignored",
        ],
    );
    expect(
        &daemon.run(&with(&["--include", "*.down_proj"])),
        0,
        &["1 layers on 1 sites"],
    );
}
