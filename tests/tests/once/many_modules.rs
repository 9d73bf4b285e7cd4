//! How the time grows with the number of modules, where no checkpoint is given.

use std::path::Path;
use std::process::Command;

use qera_tests::daemon::{TestDaemon, expect, run_to_end};
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::shard_path;

use super::BINARY;

/// Seconds of computing that gathering so many modules takes.
fn seconds_of(modules: usize) -> f64 {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let tensors: Vec<_> = (0..modules)
        .map(|module| {
            let name = format!("model.layers.{module}.up_proj");
            TensorToWrite::f32(&name, &[1, 2], &[1.0, module as f32])
        })
        .collect();
    write_safetensors(&shard_path(&daemon, "all"), &tensors, &[]);
    // In memory where there is such a place: a file a module is written, and the disk's time is not
    // what is asked.
    let memory = Path::new("/dev/shm");
    let state = if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    };
    let mut command = Command::new("sh");
    command.current_dir(daemon.path());
    command.args(["-c", "\"$0\" \"$@\"; code=$?; times; exit $code", BINARY]);
    command.args([
        "--once",
        "--watch",
        "activations",
        "--memory-budget",
        "40GiB",
        "--state",
    ]);
    command.arg(state.path().join("state"));
    let run = run_to_end(command);
    expect(&run, 0, &["the statistics of 1 shards"]);
    // The second line is that of the children: user and system, "0m1.250s 0m0.310s".
    let times = run.output.lines().last().unwrap().split_whitespace();
    let seconds = times.map(|time| {
        let (minutes, seconds) = time.trim_end_matches('s').split_once('m').unwrap();
        60.0 * minutes.parse::<f64>().unwrap() + seconds.parse::<f64>().unwrap()
    });
    seconds.sum()
}

/// Eight times the modules take eight times the time, not 64 times.
#[test]
fn time_grows_with_the_number_of_modules_and_not_with_its_square() {
    let few = seconds_of(25_000);
    let many = seconds_of(200_000);
    println!("25,000 modules: {few:.2} s, 200,000: {many:.2} s of computing");
    assert!(many < 20.0 * few, "{few} s, {many} s");
    // Two cores that do nothing else take at most 5 s; on busy ones each second counts for less.
    assert!(many < 30.0, "{many} s");
}
