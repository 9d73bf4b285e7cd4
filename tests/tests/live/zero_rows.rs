//! Rows that are all zero say nothing: neither that a layer has converged, nor that it has not.

use qera_tests::event::published;
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{DOWN, K, Q, rename_in, sine_values};

use super::{RunningDaemon, begin_on_three_layers};

const SEQUENCE: usize = 64;
/// Few of them are scored: this many give blocks enough at each solve point.
const SEQUENCES: usize = 160;
/// Enough for two pieces of evidence, if they were evidence.
const ZERO_SHARDS: usize = 8;

/// Shards of sequences whose rows are zero for q and k, and not for down; no two are the same.
fn send_zeros(daemon: &RunningDaemon) {
    for shard in 0..ZERO_SHARDS {
        let sequences = SEQUENCES + shard;
        let rows = sequences * SEQUENCE;
        let tensors = [
            TensorToWrite::f32(Q, &[sequences, SEQUENCE, 8], &vec![0.0; rows * 8]),
            TensorToWrite::f32(
                DOWN,
                &[sequences, SEQUENCE, 12],
                &sine_values(rows * 12, shard as f32),
            ),
        ];
        rename_in(&daemon.daemon, &format!("zeros-{shard}"), &tensors);
    }
}

#[test]
fn an_input_that_is_always_zero_has_not_converged() {
    let mut running = begin_on_three_layers(&["--tolerance", "0.5"]);
    send_zeros(&running);
    running.live.wait_for(&published(ZERO_SHARDS));
    assert_eq!(running.live.stop(), Some(0), "{}", running.live.log);
    let adapter = running.daemon.adapter("qera-out");
    for layer in [Q, K] {
        let layer = adapter.layer(layer);
        assert_eq!(layer["converged"], false, "{layer}");
        assert!(layer["evidence"].is_null(), "{layer}");
        assert_eq!(layer["error"]["without"], 0.0, "{layer}");
    }
    assert_eq!(adapter.layer(DOWN)["converged"], true);
}

/// The corrections of one shard, old and new, are the same good on rows that are zero.
#[test]
fn rows_that_become_zero_show_no_gain() {
    let mut running = begin_on_three_layers(&["--tolerance", "0.5"]);
    let rows = |module: &str, width: usize| {
        let values = sine_values(SEQUENCES * SEQUENCE * width, 0.3);
        TensorToWrite::f32(module, &[SEQUENCES, SEQUENCE, width], &values)
    };
    rename_in(&running.daemon, "first", &[rows(Q, 8), rows(DOWN, 12)]);
    running.live.wait_for(&published(1));
    send_zeros(&running);
    running.live.wait_for(&published(1 + ZERO_SHARDS));
    assert_eq!(running.live.stop(), Some(0), "{}", running.live.log);
    let adapter = running.daemon.adapter("qera-out");
    for layer in [Q, K] {
        let layer = adapter.layer(layer);
        assert_eq!(layer["converged"], false, "{layer}");
        assert!(layer["evidence"].is_null(), "{layer}");
        assert!(layer["error"]["without"].as_f64().unwrap() > 0.0, "{layer}");
    }
    assert_eq!(adapter.layer(DOWN)["converged"], true);
}
