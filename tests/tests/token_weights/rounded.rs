//! W~ that is rounded under rows with weights: whatever they weigh, the run ends with one.

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{Q, once_with};

use super::{daemon_with, number, weights_of};

const SHAPE: [usize; 3] = [8, 70, 8];
/// The channel that is large in the first sequence.
const LARGE: usize = 3;

/// Rows of Q of which the first sequence is so many times larger in one channel, and weighs so much
/// more.
fn shard(scale: f32, weight: f32) -> Vec<TensorToWrite> {
    let [sequences, length, width] = SHAPE;
    let number = |i: usize| {
        let at = i as f32;
        let value = (at * 0.9503).sin() * (at * at * 0.0137).cos();
        let large = i < length * width && i % width == LARGE;
        if large { scale * value } else { value }
    };
    let values: Vec<f32> = (0..sequences * length * width).map(number).collect();
    let weight = |row: usize| if row < length { weight } else { 1.0 };
    let weights: Vec<f32> = (0..sequences * length).map(weight).collect();
    vec![
        TensorToWrite::f32(Q, &SHAPE, &values),
        weights_of(Q, &SHAPE[..2], &weights),
    ]
}

/// After a run that rounds and corrects.
fn rounded(scale: f32, weight: f32, rounding: &str) -> TestDaemon {
    let daemon = daemon_with([shard(scale, weight)].into_iter());
    let run = daemon.run(&once_with(&["--rounding", rounding]));
    expect(&run, 0, &["1 shards folded"]);
    daemon
}

fn blocks_left_out(daemon: &TestDaemon) -> f64 {
    number(daemon, Q, "/rounding/blocks_left_out")
}

/// Massive channels of the rows that judge leave no trace in the R of the others, in f64.
#[test]
fn massive_channels_of_heavy_rows_that_judge() {
    for rounding in ["feedback", "projected"] {
        for (scale, weight) in [(1.0, 1.0), (6_000.0, 3.0), (6_000.0, 30.0), (60_000.0, 3.0)] {
            let daemon = rounded(scale, weight, rounding);
            let left_out = blocks_left_out(&daemon);
            assert!((left_out - 2.0).abs() < 0.5, "{scale} {weight}: {left_out}");
            let tested = number(&daemon, Q, "/held_out_error/rows_tested");
            assert!((tested - 140.0).abs() < 0.5, "{scale} {weight}: {tested}");
        }
    }
}

/// Where the others weigh too little W~ is made from all of them, and nothing says how good it is.
#[test]
fn nothing_judges_where_too_little_would_be_left() {
    for rounding in ["feedback", "projected"] {
        for (scale, weight) in [(1.0, 300.0), (6_000.0, 9e4), (60_000.0, 300.0)] {
            let daemon = rounded(scale, weight, rounding);
            assert!(blocks_left_out(&daemon).abs() < 0.5, "{scale} {weight}");
            let adapter = daemon.adapter("qera-out");
            let of = adapter.layer(Q);
            assert!(of["held_out_error"].is_null(), "{of}");
            assert_eq!(of["rounding"]["rows"], 560, "{of}");
            assert!(of["error"]["with"].as_f64().unwrap() > 0.0, "{of}");
        }
    }
}
