//! `plan` counts the shards that can be in memory at one time, and no more than are there.

use qera_tests::daemon::TestDaemon;
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{Q, daemon_without_shards, once_with, rename_in, sine_values};

use crate::BINARY;

const LARGE: usize = 3_000;
const SMALL: usize = 300;

fn bytes_planned(rows: &[usize]) -> u64 {
    let daemon: TestDaemon = daemon_without_shards(BINARY);
    for (number, rows) in rows.iter().enumerate() {
        let tensor = TensorToWrite::f32(Q, &[*rows, 8], &sine_values(rows * 8, number as f32));
        rename_in(&daemon, &format!("shard-{number}"), &[tensor]);
    }
    let run = daemon.run(&[&["plan", "--log-format", "json"], &once_with(&[])[..]].concat());
    assert_eq!(run.code, 0, "{}", run.log);
    let plan: serde_json::Value = serde_json::from_str(&run.output).unwrap();
    assert_eq!(plan["stages"][0]["name"], "shards in flight");
    plan["stages"][0]["bytes"].as_u64().unwrap()
}

#[test]
fn one_large_shard_is_counted_once() {
    let (large, small) = (bytes_planned(&[LARGE]), bytes_planned(&[SMALL]));
    assert!(large > 5 * small && small > 0, "{large} {small}");
    assert_eq!(bytes_planned(&[SMALL, LARGE]), large + small);
    let several = [SMALL, SMALL, LARGE, SMALL, SMALL];
    assert_eq!(bytes_planned(&several), large + 2 * small);
}
