//! What the daemon says that its CPU did: the kinds of work add up to most of what the system
//! counted for the process, and to no more.

use std::process::Command;

use qera_tests::daemon::{EndedRun, TestDaemon, expect, run_to_end};
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use serde_json::Value;

use super::BINARY;

const MODULE: &str = "model.layers.0.mlp.up_proj";
/// Width of the input, and of the output.
const WIDTH: usize = 512;
const ROWS: usize = 2048;
/// What the kinds hold of all at least. What is left is the start of the process and of threads,
/// and memory that is given back.
const MOST: f64 = 0.8;
/// Two readings of one clock some milliseconds apart, in hundredths of seconds by the shell.
const SECONDS: f64 = 0.05;

/// Numbers without a pattern that a low rank could hold.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0 - 0.5
    };
    (0..count).map(next).collect()
}

fn daemon_with_work() -> TestDaemon {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    std::fs::create_dir(daemon.path().join("checkpoint")).unwrap();
    let weight = noise(WIDTH * WIDTH, 1);
    let weight = TensorToWrite::f32(&format!("{MODULE}.weight"), &[WIDTH, WIDTH], &weight);
    let file = daemon.path().join("checkpoint/model.safetensors");
    write_safetensors(&file, &[weight], &[]);
    for shard in 0..4 {
        let rows = noise(ROWS * WIDTH, 2 + shard);
        let rows = TensorToWrite::bf16(MODULE, &[ROWS, WIDTH], &rows);
        let file = daemon.watched().join(format!("{shard}.safetensors"));
        write_safetensors(&file, &[rows], &[]);
    }
    daemon
}

/// Runs the daemon in a shell that says at the end what its children took.
fn run_in_shell(daemon: &TestDaemon, more: &[&str]) -> EndedRun {
    let options = "--once --watch activations --checkpoint checkpoint --log-format json";
    let mut shell = Command::new("sh");
    shell
        .current_dir(daemon.path())
        .args(["-c", r#""$@"; code=$?; times; exit $code"#, "sh", BINARY])
        .args(options.split(' '))
        .args(more);
    run_to_end(shell)
}

/// User and system time of the children, by the second line of `times`.
fn children_seconds(times: &str) -> f64 {
    let of_children = times.lines().nth(1).unwrap().split(' ');
    let seconds = of_children.map(|time| {
        let (minutes, seconds) = time.trim_end_matches('s').split_once('m').unwrap();
        60.0 * minutes.parse::<f64>().unwrap() + seconds.parse::<f64>().unwrap()
    });
    seconds.sum()
}

fn core_time(run: &EndedRun) -> Value {
    let events = run
        .log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let mut found: Vec<Value> = events
        .filter(|e: &Value| e["event"] == "core-time")
        .collect();
    assert_eq!(found.len(), 1, "{}", run.log);
    found.remove(0)
}

fn check(run: &EndedRun, with_work: &[&str], without: &[&str]) {
    expect(run, 0, &[]);
    let said = core_time(run);
    let (cpu, kinds) = (
        said["cpu_s"].as_f64().unwrap(),
        said["by_kind_s"].as_object().unwrap(),
    );
    let seconds = |kind: &str| kinds[kind].as_f64().unwrap();
    assert_eq!(kinds.len(), with_work.len() + without.len(), "{said}");
    assert!(with_work.iter().all(|kind| seconds(kind) > 0.0), "{said}");
    assert!(without.iter().all(|kind| seconds(kind) == 0.0), "{said}");
    let sum: f64 = kinds.values().map(|kind| kind.as_f64().unwrap()).sum();
    let counted = children_seconds(&run.output);
    assert!(sum <= cpu, "{sum} of {cpu} s: {said}");
    assert!(cpu <= counted + SECONDS, "{cpu} of {counted} s");
    assert!(
        sum >= MOST * (counted - SECONDS),
        "{sum} of {counted} s: {said}"
    );
}

#[test]
fn kinds_of_work_add_up_to_most_of_what_the_process_took() {
    let daemon = daemon_with_work();
    let solving = [
        "read",
        "check",
        "hash",
        "accumulate",
        "choose",
        "quantize",
        "subspace",
        "measure",
        "round",
        "write",
    ];
    for threads in ["1", "2"] {
        let out = format!("out-{threads}");
        let run = run_in_shell(&daemon, &["--threads", threads, "--out", &out]);
        check(&run, &solving, &[]);
    }
    // Solved again from the state of the first: no row is read.
    let (reading, rest) = solving.split_at(4);
    let options = [
        "--state",
        "out-1/state",
        "--out",
        "again",
        "--rank",
        "16",
        "solve",
    ];
    check(&run_in_shell(&daemon, &options), rest, reading);
}
