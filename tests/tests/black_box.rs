//! The daemon as a process: the command line's contract on the fixture and on a small made checkpoint.

use std::fs;
use std::path::Path;

use qera_tests::daemon::{TestDaemon, expect, output_error};
use qera_tests::shards::{TensorToWrite, write};
use qera_tests::small::{DOWN, K, Q, shard_path, small, wave, with, write_checkpoint};

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
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
    let daemon = small(BINARY);
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
    let daemon = small(BINARY);
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

/// The statistics of R do not know how rows came; the LQER statistic does, so it is not used here.
#[test]
fn shapes_and_types_of_the_same_rows_agree() {
    // Integers survive every type.
    let rows: Vec<f32> = (0..256 * 8).map(|i| ((i * 37) % 13) as f32 - 6.0).collect();
    let mut adapters = Vec::new();
    for kind in 0..4 {
        let daemon = small(BINARY);
        for shard in 0..4 {
            let part = &rows[shard * 512..(shard + 1) * 512];
            let tensors = match kind {
                0 => vec![TensorToWrite::f32(Q, &[64, 8], part)],
                1 => vec![TensorToWrite::bf16(Q, &[2, 32, 8], part)],
                2 => vec![
                    TensorToWrite::f16(Q, &[1, 64, 8], part),
                    TensorToWrite::f32(K, &[64, 8], part),
                ],
                _ => {
                    let padded: Vec<f32> = part
                        .chunks(256)
                        .flat_map(|p| [p, &[9.0; 64]].concat())
                        .collect();
                    let mask: Vec<u8> = (0..80).map(|row| u8::from(row % 40 < 32)).collect();
                    let mask_key = format!("{Q}::mask");
                    vec![
                        TensorToWrite::bf16(Q, &[2, 40, 8], &padded),
                        TensorToWrite::u8(&mask_key, &[2, 40], &mask),
                    ]
                }
            };
            write(
                &shard_path(&daemon, &format!("shard-{shard}")),
                &tensors,
                &[],
            );
        }
        expect(
            &daemon.run(&with(&["--shrinkage", "0.1"])),
            0,
            &["folded shard-3.safetensors: 64 rows"],
        );
        adapters.push(daemon.adapter("qera-out").bytes);
    }
    assert!(adapters.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_wide_range_is_written_f32_and_says_so() {
    let daemon = small(BINARY);
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
    let daemon = small(BINARY);
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
    let daemon = small(BINARY);
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
        &daemon.run(&with(&["--out", "joined"])),
        0,
        &["2 layers on 1 sites", "0 starved"],
    );
}

#[test]
fn excluded_modules_are_ignored_and_counted() {
    let daemon = small(BINARY);
    expect(
        &daemon.run(&with(&["--exclude", "*.down_proj"])),
        0,
        &[
            "2 layers on 1 sites",
            "1 keys of modules not selected ignored",
        ],
    );
    expect(
        &daemon.run(&with(&["--include", "*.down_proj", "--out", "down"])),
        0,
        &["1 layers on 1 sites"],
    );
}

/// The site is fed by q_proj's rows whether q_proj is selected or not.
#[test]
fn rows_of_an_unselected_member_feed_the_site() {
    let (whole, part) = (small(BINARY), small(BINARY));
    expect(&whole.run(&with(&["--shrinkage", "0.1"])), 0, &[]);
    expect(
        &part.run(&with(&["--include", "*.k_proj", "--shrinkage", "0.1"])),
        0,
        &["1 layers corrected, 0 starved"],
    );
    assert_eq!(
        whole.adapter("qera-out").factors(K).1,
        part.adapter("qera-out").factors(K).1
    );
    let excluded = part.run(&with(&["--exclude", "*.q_proj", "--out", "excluded"]));
    expect(&excluded, 0, &["2 layers corrected, 0 starved"]);
}

/// A correction that is nearly exact: f is far below what R's f32 products resolve, so it is measured on rows.
#[test]
fn a_tiny_error_is_measured_not_guessed() {
    let daemon = small(BINARY);
    let rows: Vec<f32> = (0..600)
        .flat_map(|i| {
            wave(8, 0.0)
                .into_iter()
                .map(move |x| x * (1 + i % 7) as f32)
        })
        .collect();
    for shard in 0..4 {
        let tensor = TensorToWrite::f32(Q, &[600, 8], &rows);
        write(
            &shard_path(&daemon, &format!("shard-{shard}")),
            &[tensor],
            &[],
        );
    }
    let run = daemon.run(&with(&["--shrinkage", "0"]));
    expect(&run, 0, &["q_proj: written f32: f16 would raise its error"]);
    let quantizer = qera_core::quantize::Mxint::new(4, 4).unwrap();
    let (weight, mut quantized) = (wave(48, 0.0), vec![0.0; 48]);
    quantizer
        .quantize_dequantize(&weight, 8, &mut quantized)
        .unwrap();
    let error: Vec<f32> = weight.iter().zip(&quantized).map(|(w, q)| w - q).collect();
    let adapter = daemon.adapter("qera-out");
    let (a, b, rank) = adapter.factors(Q);
    let truth = output_error(&rows, &error, 8, Some((&a, &b, rank)));
    let reported = adapter.layer(Q)["error"]["rounded"].as_f64().unwrap();
    let without = output_error(&rows, &error, 8, None);
    assert!(
        truth < 1e-9 * without && (reported - truth).abs() <= 1e-6 * truth + 1e-14 * without,
        "{reported} {truth}"
    );
    let in_f16 = adapter.layer(Q)["error"]["in_asked_dtype"]
        .as_f64()
        .unwrap();
    assert!(in_f16 > 1e-9 * without, "{in_f16}");
}
