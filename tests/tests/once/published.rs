//! What is published: the same bytes for any number of threads, generations, ranks, types, and the
//! errors that are told.

use std::fs;
use std::path::Path;

use qera_tests::adapter::{Adapter, output_error};
use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::fixture::{BLOCKS, fixture_run, fixtures};
use qera_tests::quantization::quantization_error;
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::{
    DOWN, K, Q, daemon_with_shards, once_with, shard_path, sine_values, write_checkpoint,
};

use super::BINARY;
use super::one_layer::{MODULE, run_once, write_weight};

#[test]
fn the_fixture_gives_the_same_bytes_for_any_number_of_threads() {
    let daemon = TestDaemon::new(BINARY);
    let watched = fixtures().join("activations");
    let run = |threads: &str, out: &str| {
        let options = ["--once", "--out", out, "--threads", threads];
        daemon.run(&fixture_run(&watched, BLOCKS, &options))
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
    for layer in one.layers() {
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
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &["published generation 1"]);
    let first = fs::read(
        daemon
            .path()
            .join("qera-out/current/adapter_model.safetensors"),
    )
    .unwrap();
    expect(
        &daemon.run(&once_with(&["--method", "approx"])),
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
    let daemon = daemon_with_shards(BINARY);
    let run = daemon.run(&once_with(&[
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
    let factors = adapter.factors(DOWN);
    assert_eq!(factors.rank, 5);
    assert_eq!(adapter.layer(DOWN)["rank_used"], 2);
    let rows_of_b = || factors.lora_b.chunks(5);
    let mut padding = factors.lora_a[2 * 12..]
        .iter()
        .chain(rows_of_b().flat_map(|row| &row[2..]));
    assert!(padding.all(|x| x.abs() <= 0.0), "padding");
    assert!(rows_of_b().any(|row| row[1].abs() > 0.0));
}

#[test]
fn a_wide_range_is_written_f32_and_says_so() {
    let daemon = daemon_with_shards(BINARY);
    write_checkpoint(
        &daemon.path().join("checkpoint"),
        &sine_values(48, 0.0)
            .iter()
            .map(|w| w * 1e12)
            .collect::<Vec<_>>(),
    );
    let run = daemon.run(&once_with(&["--dtype", "f16"]));
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
    let daemon = daemon_with_shards(BINARY);
    expect(
        &daemon.run(&once_with(&["--quantizer", "mxint2", "--shrinkage", "0.3"])),
        0,
        &[],
    );
    let adapter = daemon.adapter("qera-out");
    let weight = sine_values(48, 0.0);
    let error = quantization_error(&weight, 8, 2, 4);
    let rows: Vec<f32> = (0..4)
        .flat_map(|shard| sine_values(300 * 8, shard as f32))
        .collect();
    let record = adapter.layer(Q);
    let reported = |key: &str| record["error"][key].as_f64().unwrap();
    let with = output_error(&rows, &error, 8, Some(&adapter.factors(Q)));
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

/// A correction that is nearly exact: f is far below what R's f32 products resolve, so it is
/// measured on rows.
#[test]
fn a_tiny_error_is_measured_not_guessed() {
    let daemon = daemon_with_shards(BINARY);
    let rows: Vec<f32> = (0..600)
        .flat_map(|i| {
            sine_values(8, 0.0)
                .into_iter()
                .map(move |x| x * (1 + i % 7) as f32)
        })
        .collect();
    for shard in 0..4 {
        let tensor = TensorToWrite::f32(Q, &[600, 8], &rows);
        write_safetensors(
            &shard_path(&daemon, &format!("shard-{shard}")),
            &[tensor],
            &[],
        );
    }
    let run = daemon.run(&once_with(&["--shrinkage", "0", "--dtype", "f32"]));
    expect(&run, 0, &[]);
    let error = quantization_error(&sine_values(48, 0.0), 8, 4, 4);
    let adapter = daemon.adapter("qera-out");
    let truth = output_error(&rows, &error, 8, Some(&adapter.factors(Q)));
    let rounded = |adapter: &Adapter| adapter.layer(Q)["error"]["rounded"].as_f64().unwrap();
    let reported = rounded(&adapter);
    let without = output_error(&rows, &error, 8, None);
    assert!(
        truth < 1e-9 * without && (reported - truth).abs() <= 1e-6 * truth + 1e-14 * without,
        "{reported} {truth}"
    );

    // f16 multiplies that by a million, and it is still nothing beside the error that was: bf16
    // leaves more than a millionth of it.
    let run = daemon.run(&once_with(&["--shrinkage", "0"]));
    expect(&run, 0, &[]);
    assert!(!run.log.contains("written f32"), "{}", run.log);
    let adapter = daemon.adapter("qera-out");
    let layer = adapter.layer(Q);
    assert_eq!(layer["dtype"], "F16");
    assert!(layer["error"]["in_asked_dtype"].is_null(), "{layer}");
    let in_f16 = rounded(&adapter);
    assert!(
        in_f16 > 1e-9 * without && in_f16 < 1e-6 * without,
        "{in_f16}"
    );
    let run = daemon.run(&once_with(&["--shrinkage", "0", "--dtype", "bf16"]));
    expect(
        &run,
        0,
        &["q_proj: written f32: bf16 would raise its error"],
    );
    let adapter = daemon.adapter("qera-out");
    let in_bf16 = &adapter.layer(Q)["error"]["in_asked_dtype"];
    assert!(in_bf16.as_f64().unwrap() > 1e-6 * without, "{in_bf16}");
}

/// Two channels of a million in every row: R in f64 does not show f to a millionth, and that is
/// said; of channels of ten nothing is.
#[test]
fn what_massive_channels_blur_is_told() {
    let (m, n) = (24, 12);
    let daemon = TestDaemon::with_watched_folder(BINARY);
    fs::create_dir(daemon.path().join("checkpoint")).unwrap();
    let weight: Vec<u8> = sine_values(n * m, 0.0)
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    write_weight(daemon.path(), "F32", &[n, m], weight);
    let uncertainty = |amplitude: f32, out: &str| {
        let mut rows = sine_values(600 * m, 0.5);
        for row in rows.chunks_mut(m) {
            (row[3], row[11]) = (amplitude, -0.7 * amplitude);
        }
        let tensor = TensorToWrite::f32(MODULE, &[600, m], &rows);
        write_safetensors(&shard_path(&daemon, "shard"), &[tensor], &[]);
        let more = "--shrinkage 0 --rank 2 --block-size 4 --out";
        let more: Vec<&str> = more.split(' ').chain([out]).collect();
        expect(&run_once(&daemon, &more), 0, &[]);
        daemon.adapter(out).layer(MODULE)["error"]["uncertainty"].as_f64()
    };
    let told = uncertainty(1e6, "massive").unwrap();
    assert!(told > 1e-6 && told < 0.1, "{told}");
    assert_eq!(uncertainty(10.0, "ordinary"), None);
}
