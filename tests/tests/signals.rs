//! What a signal does: the first finishes and publishes what is whole, the second ends at once.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a step that fails fails the test; rows are made f32"
)]

use core::time::Duration;
use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};

use qera_tests::daemon::TestDaemon;
use qera_tests::live::Live;
use qera_tests::shards::{TensorToWrite, write};
use qera_tests::small::{DOWN, Q, shard_path, small, wave, with};

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");

fn start(daemon: &TestDaemon) -> Child {
    daemon
        .command(&with(&[]))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// Signals in mid-stream: the log is left unread until then, and the full pipe holds the process.
fn interrupt(daemon: &TestDaemon) -> (Option<i32>, String) {
    let mut child = start(daemon);
    let mut log = child.stderr.take().unwrap();
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains("folded") {
        let mut byte = [0; 1];
        log.read_exact(&mut byte).unwrap();
        read.extend(byte);
    }
    send("-TERM", &child);
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    (child.wait().unwrap().code(), rest)
}

/// Adds 4,000 small shards with these tensors, and no two alike.
fn many(daemon: &TestDaemon, tensors: &[TensorToWrite]) {
    for number in 0..=4000 {
        let name = format!("m{number:04}");
        let number = number.to_string();
        write(
            &shard_path(daemon, &name),
            tensors,
            &[("number", number.as_str())],
        );
    }
}

#[test]
fn the_first_signal_publishes_what_was_folded() {
    let daemon = small(BINARY);
    let rows = [
        TensorToWrite::f32(Q, &[2, 8], &wave(16, 0.0)),
        TensorToWrite::f32(DOWN, &[2, 12], &wave(24, 0.0)),
    ];
    many(&daemon, &rows);
    let (code, log) = interrupt(&daemon);
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
    let daemon = small(BINARY);
    for shard in 0..4 {
        fs::remove_file(shard_path(&daemon, &format!("shard-{shard}"))).unwrap();
    }
    many(&daemon, &[TensorToWrite::f32(Q, &[2, 8], &wave(16, 0.0))]);
    write(
        &shard_path(&daemon, "z"),
        &[TensorToWrite::f32(DOWN, &[2, 12], &wave(24, 0.0))],
        &[],
    );
    let (code, log) = interrupt(&daemon);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("had a row: nothing was published"), "{log}");
    assert!(!daemon.path().join("qera-out/current").exists());
}

/// A layer that no shard feeds is starved with and without the signal, and no reason to publish nothing.
#[test]
fn an_interrupted_run_publishes_what_the_shards_can_feed() {
    let daemon = small(BINARY);
    for shard in 0..4 {
        fs::remove_file(shard_path(&daemon, &format!("shard-{shard}"))).unwrap();
    }
    many(&daemon, &[TensorToWrite::f32(Q, &[2, 8], &wave(16, 0.0))]);
    let (code, log) = interrupt(&daemon);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("2 layers corrected, 1 starved"), "{log}");
}

/// config.json is a named pipe that no one writes, so that the signals meet a process that waits.
#[test]
fn a_second_signal_ends_at_once() {
    for (signal, status) in [("-INT", 130), ("-TERM", 143)] {
        let daemon = small(BINARY);
        let pipe = daemon.path().join("checkpoint/config.json");
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        let mut child = start(&daemon);
        std::thread::sleep(Duration::from_millis(300));
        for _ in 0..2 {
            send(signal, &child);
            std::thread::sleep(Duration::from_millis(200));
        }
        let ended = child.wait().unwrap();
        let mut log = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        assert_eq!(ended.code(), Some(status), "{log}");
    }
}

/// A solve point that is still under way when the signal comes leaves no trace in the last generation, which is solved
/// cold. The layer is large enough that warm and cold solves differ.
#[test]
fn the_last_generation_is_solved_cold() {
    const M: usize = 64;
    const N: usize = 640;
    let rows = |phase: f32| {
        let noise = qera_tests::spectra::uniform(300, M, 7 + phase as u64);
        let values: Vec<f32> = noise.as_slice().iter().map(|x| *x as f32).collect();
        TensorToWrite::f32("big", &[300, M], &values)
    };
    let make = || {
        let daemon = TestDaemon::new(BINARY);
        for folder in ["activations", "checkpoint"] {
            fs::create_dir(daemon.path().join(folder)).unwrap();
        }
        let weight: Vec<f32> = qera_tests::spectra::uniform(M, N, 3)
            .as_slice()
            .iter()
            .map(|x| *x as f32)
            .collect();
        let weight = TensorToWrite::f32("big.weight", &[N, M], &weight);
        let path = daemon.path().join("checkpoint/model.safetensors");
        write(&path, &[weight], &[]);
        daemon
    };
    let arguments = |once: bool| {
        let basic = [
            "--watch",
            "activations",
            "--checkpoint",
            "checkpoint",
            "--rank",
            "6",
        ];
        let first: &[&str] = if once { &["--once"] } else { &[] };
        [first, &basic[..]].concat()
    };
    let batch = make();
    for shard in 0..2_u8 {
        let name = format!("s{shard}");
        write(&shard_path(&batch, &name), &[rows(shard.into())], &[]);
    }
    assert_eq!(batch.run(&arguments(true)).code, 0);
    for _ in 0..6 {
        let daemon = make();
        let mut live = Live::start(daemon.command(&arguments(false)));
        live.wait_for("watching");
        for shard in 0..2_u8 {
            let name = format!("s{shard}");
            let aside = daemon.path().join("aside");
            write(&aside, &[rows(shard.into())], &[]);
            fs::rename(aside, shard_path(&daemon, &name)).unwrap();
            live.wait_for(&format!("folded {name}"));
        }
        assert_eq!(live.stop(), Some(0), "{}", live.log);
        let (ours, theirs) = (daemon.adapter("qera-out"), batch.adapter("qera-out"));
        assert_eq!(ours.manifest["inputs"]["drained"], true, "{}", live.log);
        assert!(ours.bytes == theirs.bytes);
        let again = daemon.run(&arguments(true));
        assert!(again.log.contains("nothing new"), "{}", again.log);
    }
}
