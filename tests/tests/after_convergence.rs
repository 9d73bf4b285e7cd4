//! `--after-convergence`: what a site whose layers have converged leaves out, and when it takes it again.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use core::time::Duration;
use std::fs;
use std::path::Path;
use std::time::Instant;

use qera_core::quantize::Mxint;
use qera_tests::daemon::{Adapter, TestDaemon, expect, output_error};
use qera_tests::live::{Live, arrive, fixture_model, long_stream};
use qera_tests::shards::{TensorToWrite, write};
use qera_tests::small::{BASIC, DOWN, K, Q, wave, write_checkpoint};

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
/// Sequences of a made shard, and rows of each.
const SHARD: [usize; 2] = [32, 128];
const SHARD_ROWS: u64 = 32 * 128;

/// PageVec from -1 to 1 that depend on the seed alone.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Rows whose first channels are the large ones, or, of another text, the last ones.
fn rows(count: usize, width: usize, seed: u64, other: bool) -> Vec<f32> {
    let large = |channel: usize| (channel < width / 2) != other;
    let mut values = noise(count * width, seed);
    for row in values.chunks_exact_mut(width) {
        for (channel, value) in row.iter_mut().enumerate() {
            *value *= if large(channel) { 4.0 } else { 0.5 };
        }
    }
    values
}

/// A made shard of both sites.
fn made_shard(folder: &Path, number: u64, other: bool) {
    let [sequences, length] = SHARD;
    let tensor = |name: &str, width: usize, seed: u64| {
        let values = rows(sequences * length, width, seed, other);
        TensorToWrite::f32(name, &[sequences, length, width], &values)
    };
    let tensors = [
        tensor(Q, 8, 1_000_003 * number),
        tensor(DOWN, 12, 1_000_003 * number + 500_000),
    ];
    let aside = folder.join(format!(".{number:03}.part"));
    write(&aside, &tensors, &[]);
    fs::rename(aside, folder.join(format!("{number:03}.safetensors"))).unwrap();
}

/// A daemon's folder with the small checkpoint and this many shards.
fn made(shards: u64) -> TestDaemon {
    let daemon = TestDaemon::new(BINARY);
    fs::create_dir(daemon.path().join("activations")).unwrap();
    write_checkpoint(&daemon.path().join("checkpoint"), &wave(48, 0.0));
    add(&daemon, 0..shards, false);
    daemon
}

fn add(daemon: &TestDaemon, numbers: core::ops::Range<u64>, other: bool) {
    for number in numbers {
        made_shard(&daemon.path().join("activations"), number, other);
    }
}

/// Live on the small checkpoint.
fn start(daemon: &TestDaemon, extra: &[&str]) -> Live {
    let live = ["--idle-publish", "2", "--keep-generations", "50"];
    Live::start(daemon.command(&[&BASIC[1..], &live, extra].concat()))
}

/// Runs until so many shards are folded, solved and published.
fn run(daemon: &TestDaemon, shards: usize, extra: &[&str]) -> Live {
    let mut live = start(daemon, extra);
    settled(daemon, shards);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    live
}

/// Waits until so many shards are folded, solved, published and saved.
fn settled(daemon: &TestDaemon, shards: usize) {
    let deadline = Instant::now() + Duration::from_secs(120);
    let done = || {
        let status = daemon.run(&["status", "--json"]);
        // It is not there before the daemon is.
        let status: Option<serde_json::Value> = serde_json::from_str(&status.output).ok();
        status.is_some_and(|s| s["phase"] == "idle" && s["shards"] == shards)
    };
    while !done() {
        assert!(Instant::now() < deadline, "{shards} shards do not settle");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn layers(adapter: &Adapter) -> &[serde_json::Value] {
    adapter.manifest["layers"].as_array().unwrap()
}

fn number(layer: &serde_json::Value, field: &str) -> u64 {
    layer[field].as_u64().unwrap()
}

/// Every file of the newest snapshot but its index, which names the shards' numbers.
fn snapshot(daemon: &TestDaemon) -> Vec<(String, Vec<u8>)> {
    let folder = daemon.path().join("qera-out/state/snapshots");
    let entries = fs::read_dir(folder).unwrap();
    let newest = entries.map(|e| e.unwrap().path()).max().unwrap();
    let mut files: Vec<_> = fs::read_dir(newest)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Same adapter, same statistics, same progress, bit for bit; same numbers in the manifest.
fn assert_same(a: &TestDaemon, b: &TestDaemon) {
    for ((name, ours), (_, theirs)) in snapshot(a).iter().zip(&snapshot(b)) {
        assert!(ours == theirs, "{name} differs");
    }
    let (a, b) = (a.adapter("qera-out"), b.adapter("qera-out"));
    assert!(a.bytes == b.bytes, "adapter_model.safetensors differs");
    assert_eq!(a.config, b.config);
    for (ours, theirs) in layers(&a).iter().zip(layers(&b)) {
        for field in ["rows", "rows_skipped", "converged", "folding", "evidence"] {
            assert_eq!(ours[field], theirs[field], "{}: {field}", ours["name"]);
        }
    }
}

/// The default, and a batch whatever is said, fold every row though the layers have converged.
#[test]
fn full_and_once_leave_nothing_out() {
    let (shards, rows) = (20, 20 * SHARD_ROWS);
    let loose = ["--tolerance", "0.2"];
    let given = ["--tolerance", "0.2", "--after-convergence", "full"];
    let batch = made(shards);
    let once = [&BASIC[..], &loose, &["--after-convergence", "stop"]].concat();
    expect(&batch.run(&once), 0, &[]);
    let batch = batch.adapter("qera-out");
    for extra in [&loose[..], &given] {
        let daemon = made(shards);
        let live = run(&daemon, 20, extra);
        assert!(!live.log.contains("closed at"), "{}", live.log);
        let adapter = daemon.adapter("qera-out");
        assert!(adapter.bytes == batch.bytes);
        for layer in layers(&adapter) {
            assert_eq!(layer["converged"], true, "{layer}");
            assert_eq!(layer["folding"], "open");
            assert_eq!(
                (number(layer, "rows"), number(layer, "rows_skipped")),
                (rows, 0)
            );
        }
    }
    for layer in layers(&batch) {
        assert_eq!(
            (number(layer, "rows"), number(layer, "rows_skipped")),
            (rows, 0)
        );
    }
}

/// Real text: rows are left out after convergence and counted, no drift is seen where there is none, and the bytes do not
/// depend on the number of threads.
#[test]
fn a_stationary_stream_is_left_out_and_counted() {
    let stream = tempfile::tempdir().unwrap();
    let shards = long_stream(stream.path(), 22, 16).len();
    let (watched, model) = (stream.path().display().to_string(), fixture_model());
    let total = 22 * 16 * 128;
    let run = |mode: &str, threads: &str| {
        let daemon = TestDaemon::new(BINARY);
        let arguments = [
            &qera_tests::live::fixture_run(&watched, &model)[..],
            &["--tolerance", "0.05", "--idle-publish", "1"],
            &["--after-convergence", mode, "--threads", threads],
        ];
        let mut live = Live::start(daemon.command(&arguments.concat()));
        settled(&daemon, shards);
        assert_eq!(live.stop(), Some(0), "{}", live.log);
        assert!(live.log.contains("closed at"), "{}", live.log);
        assert!(!live.log.contains("drift"), "{}", live.log);
        daemon
    };
    for mode in ["stop", "sample"] {
        let (one, two) = (run(mode, "1"), run(mode, "2"));
        assert_same(&one, &two);
        let adapter = one.adapter("qera-out");
        let mut closed = 0;
        for layer in layers(&adapter) {
            let (rows, skipped) = (number(layer, "rows"), number(layer, "rows_skipped"));
            assert_eq!(rows + skipped, total, "{layer}");
            assert_eq!(layer["folding"] == "closed", skipped > 0, "{layer}");
            closed += usize::from(skipped > 0);
            if skipped > 0 {
                assert_eq!(layer["converged"], true, "{layer}");
            }
        }
        assert!(closed >= 8, "{closed}");
        check_folded(mode, &adapter);
        check_status(&one, &adapter);

        // Another adapter from the same state says how much it did not see.
        let solve = ["solve", "--checkpoint", &model, "--out", "other"];
        let more = ["--state", "qera-out/state", "--quantizer", "mxint3"];
        expect(&one.run(&[&solve[..], &more].concat()), 0, &[]);
        for (ours, theirs) in layers(&one.adapter("other")).iter().zip(layers(&adapter)) {
            assert_eq!(ours["rows_skipped"], theirs["rows_skipped"]);
        }
    }
}

/// down_proj of the second layer closes early: with `stop` at a solve point of whole shards, with `sample` a sixteenth of
/// the rest is folded as well.
fn check_folded(mode: &str, adapter: &Adapter) {
    let layer = adapter.layer("model.layers.1.mlp.down_proj");
    let (rows, skipped) = (number(layer, "rows"), number(layer, "rows_skipped"));
    let closed_at = 10_240;
    // Evidence goes on: it is of rows that came after the site was closed.
    assert!(number(&layer["evidence"], "rows") > 30_000, "{layer}");
    if mode == "stop" {
        assert_eq!(rows, closed_at);
    } else {
        let share = (rows - closed_at) as f64 / (rows - closed_at + skipped) as f64;
        assert!((0.03..0.1).contains(&share), "{share}");
        assert_eq!(rows % 128, 0, "whole sequences");
    }
}

fn check_status(daemon: &TestDaemon, adapter: &Adapter) {
    let status = daemon.run(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status.output).unwrap();
    let table = daemon.run(&["status"]).output;
    for (shown, layer) in status["layers"]
        .as_array()
        .unwrap()
        .iter()
        .zip(layers(adapter))
    {
        assert_eq!(shown["rows"], layer["rows"]);
        assert_eq!(shown["rows_skipped"], layer["rows_skipped"]);
        let closed = shown["rows_skipped"] != 0;
        assert_eq!(shown["status"] == "closed", closed, "{shown}");
        let name = layer["name"].as_str().unwrap();
        let line = table.lines().find(|line| line.starts_with(name)).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[3], shown["rows_skipped"].to_string(), "{line}");
    }
}

/// The mean over the layers of an adapter's error on new rows of the other text, relative to no correction.
fn error_on_the_other_text(adapter: &Adapter) -> f64 {
    let quantizer = Mxint::new(4, 4).unwrap();
    let mut sum = 0.0;
    for (module, m, weight) in [
        (Q, 8, wave(48, 0.0)),
        (K, 8, wave(32, 1.0)),
        (DOWN, 12, wave(96, 2.0)),
    ] {
        let mut quantized = vec![0.0; weight.len()];
        quantizer
            .quantize_dequantize(&weight, m, &mut quantized)
            .unwrap();
        let error: Vec<f32> = weight.iter().zip(&quantized).map(|(w, q)| w - q).collect();
        let rows = rows(4096, m, 77_777, true);
        let (a, b, rank) = adapter.factors(module);
        let with = output_error(&rows, &error, m, Some((&a, &b, rank)));
        sum += with / output_error(&rows, &error, m, None);
    }
    sum / 3.0
}

/// A long stream of one text is never taken for another; when the text changes, the site says so, folds again and follows.
#[test]
fn a_drift_opens_the_site_again() {
    for mode in ["stop", "sample"] {
        let extra = ["--tolerance", "0.05", "--after-convergence", mode];
        let daemon = made(80);
        let live = run(&daemon, 80, &extra);
        assert!(!live.log.contains("drift"), "{}", live.log);
        let frozen = daemon.adapter("qera-out");
        for layer in layers(&frozen) {
            assert_eq!(layer["folding"], "closed", "{layer}");
            assert!(number(layer, "rows") < number(layer, "rows_skipped"));
        }

        add(&daemon, 80..140, true);
        let live = run(&daemon, 140, &extra);
        for name in [Q, DOWN] {
            let said = |line: &str| {
                (line.starts_with(name) || (name == Q && line.starts_with(K)))
                    && line.contains("drift at")
                    && line.contains("error on new rows rose from")
                    && line.contains("site re-opened")
            };
            assert!(live.log.lines().any(said), "{name}:\n{}", live.log);
        }
        let status = daemon.run(&["status"]).output;
        let followed = daemon.adapter("qera-out");
        for (layer, before) in layers(&followed).iter().zip(layers(&frozen)) {
            let rows = number(layer, "rows");
            assert_eq!(rows + number(layer, "rows_skipped"), 140 * SHARD_ROWS);
            assert!(rows > number(before, "rows") + 20 * SHARD_ROWS, "{layer}");
            let shown = layer["folding"].as_str().unwrap();
            assert!(status.contains(shown), "{shown}:\n{status}");
        }
        // A run that stayed closed would have ended with what there was when it was closed.
        let (stayed, ended) = (
            error_on_the_other_text(&frozen),
            error_on_the_other_text(&followed),
        );
        println!("{mode}: {stayed:.3} -> {ended:.3}");
        assert!(ended < 0.9 * stayed, "{mode}: {ended} against {stayed}");
    }
}

/// Killed while sites are closed, and while a drift is under way, it ends as if nothing had happened.
#[test]
fn killed_while_closed_it_ends_the_same() {
    for mode in ["stop", "sample"] {
        let extra = ["--tolerance", "0.05", "--after-convergence", mode];
        let calm = made(40);
        add(&calm, 40..70, true);
        let live = run(&calm, 70, &extra);
        assert!(live.log.contains("drift at"), "{}", live.log);

        let daemon = made(30);
        let mut live = start(&daemon, &extra);
        live.wait_for("closed at");
        live.send("KILL");
        assert_eq!(live.end(), None);

        let mut live = start(&daemon, &extra);
        settled(&daemon, 30);
        add(&daemon, 30..40, false);
        live.wait_for("folded 034");
        live.send("KILL");
        assert_eq!(live.end(), None);

        // Closed in the snapshot: what came after it is folded again, or left out again.
        let mut live = start(&daemon, &[&extra[..], &["--threads", "1"]].concat());
        live.wait_for("more are folded again");
        settled(&daemon, 40);
        add(&daemon, 40..70, true);
        live.wait_for("drift at");
        live.send("KILL");
        assert_eq!(live.end(), None);

        run(&daemon, 70, &extra);
        assert_same(&daemon, &calm);
    }
}

/// A run with `full` on the state of one with `stop` folds everything from there on.
#[test]
fn a_closed_site_is_open_to_a_run_that_leaves_nothing_out() {
    let daemon = made(30);
    let loose = ["--tolerance", "0.05"];
    run(
        &daemon,
        30,
        &[&loose[..], &["--after-convergence", "stop"]].concat(),
    );
    let before = daemon.adapter("qera-out");
    assert!(layers(&before).iter().all(|l| l["folding"] == "closed"));
    // Arrived while nobody listened.
    let later = daemon.path().join("later");
    fs::create_dir(&later).unwrap();
    made_shard(&later, 30, false);
    let watched = daemon.path().join("activations");
    arrive(&later.join("030.safetensors"), &watched, "030");
    run(&daemon, 31, &loose);
    for (layer, before) in layers(&daemon.adapter("qera-out"))
        .iter()
        .zip(layers(&before))
    {
        assert_eq!(layer["folding"], "open", "{layer}");
        assert_eq!(layer["rows_skipped"], before["rows_skipped"]);
        assert_eq!(number(layer, "rows"), number(before, "rows") + SHARD_ROWS);
    }
}
