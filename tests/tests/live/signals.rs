//! What a signal does: the first finishes and publishes what is whole, the second ends at once.

use core::time::Duration;
use std::fs;
use std::io::Read;
use std::process::{Child, Stdio};

use qera_tests::daemon::TestDaemon;
use qera_tests::event::{event, folded};
use qera_tests::live::{Live, send_signal};
use qera_tests::safetensors_file::{Metadata, TensorToWrite, write_safetensors};
use qera_tests::spectra::uniform;
use qera_tests::three_layers::{
    DOWN, Q, daemon_with_shards, once_with, remove_shards, rename_in, shard_path, sine_values,
};

use super::BINARY;

fn start_once(daemon: &TestDaemon) -> Child {
    daemon
        .command(&once_with(&[]))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// How a run ended that a signal met in mid-stream, and what it said.
struct InterruptedRun {
    code: Option<i32>,
    log: String,
}

/// Waits until a shard was accepted.
fn wait_for_the_journal(daemon: &TestDaemon, child: &mut Child) {
    let journal = daemon.path().join("qera-out/state/journal");
    while fs::read(&journal).map_or(true, |lines| lines.is_empty()) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the full pipe holds it: no shard is accepted any more.
fn wait_until_it_is_held(daemon: &TestDaemon, child: &mut Child) {
    wait_for_the_journal(daemon, child);
    let length = || {
        fs::metadata(daemon.path().join("qera-out/state/journal"))
            .unwrap()
            .len()
    };
    let mut before = 0;
    while length() != before {
        before = length();
        assert!(child.try_wait().unwrap().is_none(), "it ended before");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Signals in mid-stream: the log is left unread until then, and the full pipe holds the process.
fn interrupt(daemon: &TestDaemon) -> InterruptedRun {
    let mut child = start_once(daemon);
    let mut log = child.stderr.take().unwrap();
    wait_for_the_journal(daemon, &mut child);
    send_signal(&child, "TERM");
    let mut said = String::new();
    log.read_to_string(&mut said).unwrap();
    InterruptedRun {
        code: child.wait().unwrap().code(),
        log: said,
    }
}

/// Adds 4,000 small shards with these tensors, and no two alike.
fn write_many(daemon: &TestDaemon, tensors: &[TensorToWrite]) {
    for number in 0..=4000 {
        let name = format!("m{number:04}");
        let number = number.to_string();
        let metadata = [Metadata::new("number", number.as_str())];
        write_safetensors(&shard_path(daemon, &name), tensors, &metadata);
    }
}

#[test]
fn the_first_signal_publishes_what_was_folded() {
    let daemon = daemon_with_shards(BINARY);
    let rows = [
        TensorToWrite::f32(Q, &[2, 8], &sine_values(16, 0.0)),
        TensorToWrite::f32(DOWN, &[2, 12], &sine_values(24, 0.0)),
    ];
    write_many(&daemon, &rows);
    let InterruptedRun { code, log } = interrupt(&daemon);
    assert_eq!(code, Some(0), "{log}");
    assert!(
        log.contains("published generation 1") && log.contains("left unread"),
        "{log}"
    );
    let inputs = &daemon.adapter("qera-out").manifest["inputs"];
    let count = |key: &str| inputs[key].as_u64().unwrap();
    assert!(count("shards") >= 1 && count("unread") >= 1, "{inputs}");
    assert_eq!(count("shards") + count("unread"), 4005);
}

/// One file per layer, stopped before the second layer's files: half an adapter replaces nothing.
#[test]
fn an_interrupted_run_does_not_publish_starved_layers() {
    let daemon = daemon_with_shards(BINARY);
    remove_shards(&daemon);
    write_many(
        &daemon,
        &[TensorToWrite::f32(Q, &[2, 8], &sine_values(16, 0.0))],
    );
    write_safetensors(
        &shard_path(&daemon, "z"),
        &[TensorToWrite::f32(DOWN, &[2, 12], &sine_values(24, 0.0))],
        &[],
    );
    let InterruptedRun { code, log } = interrupt(&daemon);
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains("have rows for had none: nothing was published"),
        "{log}"
    );
    assert!(!daemon.path().join("qera-out/current").exists());
}

/// A layer that no shard feeds is starved with and without the signal, and no reason to publish
/// nothing.
#[test]
fn an_interrupted_run_publishes_what_the_shards_can_feed() {
    let daemon = daemon_with_shards(BINARY);
    remove_shards(&daemon);
    write_many(
        &daemon,
        &[TensorToWrite::f32(Q, &[2, 8], &sine_values(16, 0.0))],
    );
    let InterruptedRun { code, log } = interrupt(&daemon);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("2 layers corrected, 0 starved"), "{log}");
}

/// The log is left unread, and the full pipe holds the process, so that the signals meet one that
/// has not ended by itself.
#[test]
fn a_second_signal_ends_at_once() {
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let daemon = daemon_with_shards(BINARY);
        write_many(
            &daemon,
            &[TensorToWrite::f32(Q, &[2, 8], &sine_values(16, 0.0))],
        );
        let mut child = start_once(&daemon);
        let mut log = child.stderr.take().unwrap();
        wait_until_it_is_held(&daemon, &mut child);
        for _ in 0..2 {
            send_signal(&child, signal);
            std::thread::sleep(Duration::from_millis(200));
        }
        let ended = child.wait().unwrap();
        let mut said = String::new();
        log.read_to_string(&mut said).unwrap();
        assert_eq!(ended.code(), Some(status), "{said}");
    }
}

/// A layer that is large enough that warm and cold solves differ.
const M: usize = 64;
const N: usize = 640;

/// Row-major values from a seed.
fn noise(rows: usize, seed: u64) -> Vec<f32> {
    let noise = uniform(rows, M, seed);
    noise.as_slice().iter().map(|x| *x as f32).collect()
}

/// A shard of 300 rows.
fn rows_of_the_large_layer(shard: u64) -> [TensorToWrite; 1] {
    [TensorToWrite::f32("big", &[300, M], &noise(300, 7 + shard))]
}

fn daemon_with_the_large_layer() -> TestDaemon {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let folder = daemon.path().join("checkpoint");
    fs::create_dir(&folder).unwrap();
    let weight = uniform(M, N, 3);
    let weight: Vec<f32> = weight.as_slice().iter().map(|x| *x as f32).collect();
    let weight = TensorToWrite::f32("big.weight", &[N, M], &weight);
    write_safetensors(&folder.join("model.safetensors"), &[weight], &[]);
    daemon
}

/// A solve point that is still under way when the signal comes leaves no trace in the last
/// generation, which is solved cold.
#[test]
fn the_last_generation_is_solved_cold() {
    let options = "--watch activations --checkpoint checkpoint --rank 6";
    let options: Vec<&str> = options.split(' ').collect();
    let once = [&["--once"], &options[..]].concat();
    let name = |shard: u64| format!("s{shard}");
    let batch = daemon_with_the_large_layer();
    for shard in 0..2 {
        rename_in(&batch, &name(shard), &rows_of_the_large_layer(shard));
    }
    assert_eq!(batch.run(&once).code, 0);
    for _ in 0..6 {
        let daemon = daemon_with_the_large_layer();
        let mut live = Live::start(daemon.command(&options));
        live.wait_for(&event("watching"));
        for shard in 0..2 {
            rename_in(&daemon, &name(shard), &rows_of_the_large_layer(shard));
            live.wait_for(&folded(&name(shard)));
        }
        assert_eq!(live.stop(), Some(0), "{}", live.log);
        let (ours, theirs) = (daemon.adapter("qera-out"), batch.adapter("qera-out"));
        assert_eq!(ours.manifest["inputs"]["drained"], true, "{}", live.log);
        assert!(ours.bytes == theirs.bytes);
        let again = daemon.run(&once);
        assert!(again.log.contains("nothing new"), "{}", again.log);
    }
}
