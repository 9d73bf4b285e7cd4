//! Held-out figures are of rows that W~ has not seen.

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{Q, daemon_without_shards, rename_in, sine_values};

use super::{BINARY, kept_in_state, once_rounded, record};

/// A shard of 16 sequences of 64 rows: as many blocks.
fn sequences(daemon: &TestDaemon, name: &str, phase: f32) {
    let values = sine_values(1024 * 8, phase);
    let tensor = TensorToWrite::f32(Q, &[16, 64, 8], &values);
    rename_in(daemon, name, &[tensor]);
}

#[test]
fn only_blocks_that_w_has_not_seen_are_scored() {
    let daemon = daemon_without_shards(BINARY);
    sequences(&daemon, "a", 0.5);
    sequences(&daemon, "b", 1.5);
    let options = once_rounded(&["--include", "*.q_proj"]);
    expect(&daemon.run(&options), 0, &[]);
    let record = record(&kept_in_state(&daemon)[Q]);
    let left_out = record["left_out"].as_array().unwrap().len();
    assert_eq!(left_out, 8, "every fourth of 32");
    assert_eq!(record["blocks_seen"], 32);
    let blocks = |daemon: &TestDaemon| {
        let manifest = daemon.adapter("qera-out");
        let held_out = manifest.layer(Q)["held_out_error"].clone();
        held_out["blocks"].as_u64().unwrap()
    };
    assert_eq!(blocks(&daemon), 8);
    // What comes later has not been seen either.
    sequences(&daemon, "c", 2.5);
    expect(&daemon.run(&options), 0, &[]);
    assert_eq!(blocks(&daemon), 8 + 16);
    // Nearest rounding has seen nothing.
    let nearest = ["--out", "nearest", "--include", "*.q_proj"];
    let run = daemon.run(&qera_tests::three_layers::once_with(&nearest));
    expect(&run, 0, &[]);
    let of_nearest = daemon.adapter("nearest");
    assert_eq!(of_nearest.layer(Q)["held_out_error"]["blocks"], 48);
}
