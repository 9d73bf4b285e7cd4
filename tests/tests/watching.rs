//! A live run and its folder: files that grow, locks, folders that go, commands that are told.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use core::time::Duration;
use std::fs;

use qera_tests::daemon::TestDaemon;
use qera_tests::live::Live;
use qera_tests::shards::{TensorToWrite, write};
use qera_tests::small::{BASIC, DOWN, Q, shard_path, small, wave, write_checkpoint};

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");

/// [`small`] without its shards, and a live run on it.
fn begin(extra: &[&str]) -> (TestDaemon, Live) {
    let daemon = small(BINARY);
    for shard in 0..4 {
        fs::remove_file(shard_path(&daemon, &format!("shard-{shard}"))).unwrap();
    }
    let arguments = [&BASIC[1..], &["--idle-publish", "0.5"], extra].concat();
    let mut live = Live::start(daemon.command(&arguments));
    live.wait_for("watching activations");
    (daemon, live)
}

/// A shard of 300 rows for both sites.
fn shard(daemon: &TestDaemon, name: &str, phase: f32) {
    let tensors = [
        TensorToWrite::f32(Q, &[300, 8], &wave(300 * 8, phase)),
        TensorToWrite::f32(DOWN, &[300, 12], &wave(300 * 12, 10.0 + phase)),
    ];
    let aside = daemon.path().join("aside");
    write(&aside, &tensors, &[]);
    fs::rename(aside, shard_path(daemon, name)).unwrap();
}

fn pause() {
    std::thread::sleep(Duration::from_millis(300));
}

#[test]
fn a_file_that_grows_is_taken_when_it_is_whole() {
    let (daemon, mut live) = begin(&[]);
    shard(&daemon, "a", 0.0);
    live.wait_for("folded a");
    shard(&daemon, "whole", 1.0);
    live.wait_for("folded whole");
    let bytes = {
        let path = shard_path(&daemon, "whole");
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1; // Another content.
        bytes
    };
    let grown = shard_path(&daemon, "grown");
    for part in 1..=3 {
        fs::write(&grown, &bytes[..bytes.len() * part / 4]).unwrap();
        pause();
    }
    fs::write(&grown, &bytes).unwrap();
    live.wait_for("folded grown");
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert!(!live.log.contains("quarantined: "), "{}", live.log);
}

/// As vLLM writes: in place, under a lock on FILE.lock that stays behind.
#[test]
fn a_locked_file_is_left_to_its_producer() {
    let (daemon, mut live) = begin(&["--rescan-interval", "0.2"]);
    shard(&daemon, "a", 0.0);
    live.wait_for("folded a");
    let path = shard_path(&daemon, "held");
    let lock = fs::File::create(path.with_extension("safetensors.lock")).unwrap();
    lock.lock().unwrap();
    shard(&daemon, "held", 1.0);
    shard(&daemon, "next", 2.0);
    live.wait_for("folded next");
    pause();
    assert!(!live.log.contains("folded held"));
    drop(lock);
    live.wait_for("folded held");
    assert_eq!(live.stop(), Some(0), "{}", live.log);
}

#[test]
fn a_folder_that_goes_and_comes_back_is_watched_again() {
    for mode in ["events", "poll"] {
        let extra = ["--watch-mode", mode, "--rescan-interval", "0.2"];
        let (daemon, mut live) = begin(&extra);
        shard(&daemon, "a", 0.0);
        live.wait_for("folded a");
        let watched = daemon.path().join("activations");
        fs::remove_dir_all(&watched).unwrap();
        live.wait_for("read the watched folder");
        fs::create_dir(&watched).unwrap();
        shard(&daemon, "b", 1.0);
        live.wait_for("folded b");
        live.wait_for("2 shards folded");
        assert_eq!(live.stop(), Some(0), "{}", live.log);
        assert_eq!(daemon.adapter("qera-out").layer(Q)["rows"], 600);
    }
}

/// Bad shards are set aside, in any order, and the run goes on; in the end it is no failure.
#[test]
fn bad_shards_do_no_harm() {
    let (daemon, mut live) = begin(&[
        "--rescan-interval",
        "0.2",
        "--threads",
        "1",
        "--memory-budget",
        "16MiB",
    ]);
    let other = [("qera.model", "another")];
    let row = TensorToWrite::f32(Q, &[1, 8], &wave(8, 0.0));
    write(
        &shard_path(&daemon, "0-other"),
        core::slice::from_ref(&row),
        &other,
    );
    live.wait_for("quarantined: shard 0-other");
    shard(&daemon, "a", 0.0);
    live.wait_for("folded a");
    let nan = TensorToWrite::f32(Q, &[1, 8], &[f32::NAN; 8]);
    write(&shard_path(&daemon, "nan"), &[nan], &[]);
    live.wait_for("quarantined: shard nan.safetensors: tensor");
    let large = TensorToWrite::f32(Q, &[200_000, 8], &wave(1_600_000, 0.0));
    write(&shard_path(&daemon, "large"), &[large], &[]);
    live.wait_for("write smaller shards");
    let joined = [("qera.shares", format!(r#"[["{Q}","{DOWN}"]]"#))];
    let joined: Vec<_> = joined.iter().map(|(k, v)| (*k, v.as_str())).collect();
    write(&shard_path(&daemon, "joined"), &[row], &joined);
    live.wait_for("cannot share an input");
    shard(&daemon, "b", 1.0);
    live.wait_for("folded b");
    live.wait_for("2 shards folded");
    let status = daemon.run(&["status"]);
    assert!(status.output.contains("4 quarantined"), "{}", status.output);
    assert!(status.output.contains("quarantined: shard nan.safetensors"));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert_eq!(live.log.matches("quarantined: ").count(), 4, "{}", live.log);
    assert_eq!(daemon.adapter("qera-out").layer(Q)["rows"], 600);
}

/// Modules that later shards declare to share an input are fed by either key, though their sites are separate.
#[test]
fn what_is_shared_may_be_known_late() {
    let daemon = TestDaemon::new(BINARY);
    fs::create_dir(daemon.path().join("activations")).unwrap();
    let folder = daemon.path().join("checkpoint");
    fs::create_dir(&folder).unwrap();
    let weights = ["left", "right"]
        .map(|n| TensorToWrite::f32(&format!("enc.{n}.weight"), &[6, 8], &wave(48, 0.3)));
    write(&folder.join("model.safetensors"), &weights, &[]);
    let rows = |phase: f32| TensorToWrite::f32("enc.left", &[300, 8], &wave(2400, phase));
    let mut live = Live::start(daemon.command(&BASIC[1..]));
    live.wait_for("watching");
    write(&shard_path(&daemon, "a"), &[rows(0.0)], &[]);
    live.wait_for("folded a");
    let shares = [("qera.shares", r#"[["enc.left","enc.right"]]"#)];
    write(&shard_path(&daemon, "b"), &[rows(1.0)], &shares);
    live.wait_for("folded b");
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let adapter = daemon.adapter("qera-out");
    assert_eq!(adapter.layer("enc.left")["rows"], 600);
    assert_eq!(adapter.layer("enc.right")["rows"], 300);
}

/// A name that is no text is a name: taken once.
#[test]
fn odd_names_are_taken_once() {
    use std::os::unix::ffi::OsStrExt;
    let (daemon, mut live) = begin(&["--rescan-interval", "0.2"]);
    shard(&daemon, "a", 0.0);
    live.wait_for("folded a");
    shard(&daemon, "b", 1.0);
    live.wait_for("folded b");
    let odd = std::ffi::OsStr::from_bytes(b"odd\xff\n.safetensors");
    let aside = daemon.path().join("aside");
    let rows = TensorToWrite::f32(Q, &[20, 8], &wave(160, 4.0));
    write(&aside, &[rows], &[]);
    fs::rename(aside, daemon.path().join("activations").join(odd)).unwrap();
    live.wait_for("folded odd");
    pause();
    pause();
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert!(!live.log.contains("duplicate"), "{}", live.log);
    assert_eq!(daemon.adapter("qera-out").layer(Q)["rows"], 620);
}

#[test]
fn the_command_is_told_of_each_generation() {
    let told = "echo $QERA_GENERATION $QERA_PATH >> told; test -e $QERA_CURRENT/adapter_config.json && exit 7";
    let (daemon, mut live) = begin(&["--on-publish", told]);
    shard(&daemon, "a", 0.0);
    live.wait_for("published generation 1");
    live.wait_for("exit status: 7");
    assert_eq!(
        live.stop(),
        Some(0),
        "a failing command is not fatal: {}",
        live.log
    );
    let told = fs::read_to_string(daemon.path().join("told")).unwrap();
    let path = fs::canonicalize(daemon.path().join("qera-out/generations/000001")).unwrap();
    assert!(
        told.starts_with(&format!("1 {}\n", path.display())),
        "{told}"
    );
}

/// A method without statistics has converged when it is solved; starved layers are waited for on demand.
#[test]
fn starved_layers_are_waited_for_on_demand() {
    let method = ["--until-converged", "--method", "zeroquant-v2"];
    let only_q = |daemon: &TestDaemon| {
        let rows = TensorToWrite::f32(Q, &[300, 8], &wave(2400, 0.0));
        write(&shard_path(daemon, "q"), &[rows], &[]);
    };
    let (daemon, mut live) = begin(&method);
    only_q(&daemon);
    assert_eq!(live.end(), Some(0), "{}", live.log);
    assert!(
        live.log
            .contains("2 layers that are fed have converged; 1 are starved")
    );

    let (daemon, mut live) = begin(&[&method[..], &["--require-all"]].concat());
    only_q(&daemon);
    live.wait_for("folded q");
    pause();
    shard(&daemon, "both", 1.0);
    assert_eq!(live.end(), Some(0), "{}", live.log);
    assert!(
        live.log
            .contains("all 3 layers that are fed have converged")
    );
    assert_eq!(daemon.adapter("qera-out").layer(DOWN)["converged"], true);
}

/// The first signal before the first shard: nothing was asked for, nothing is published, and that is no failure.
#[test]
fn nothing_came() {
    let (daemon, mut live) = begin(&[]);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert!(!daemon.path().join("qera-out/current").exists());
}

/// A layer that cannot be solved ends the run by name, however many threads wait for each other.
#[test]
fn a_layer_that_cannot_be_solved_ends_the_run() {
    for threads in ["1", "2", "3", "8"] {
        for first in [0, 1] {
            let daemon = small(BINARY);
            let mut weight = wave(48, 0.0);
            weight[5] = f32::NAN;
            write_checkpoint(&daemon.path().join("checkpoint"), &weight);
            let long = [
                "--threads",
                threads,
                "--idle-publish",
                "90",
                "--rescan-interval",
                "90",
            ];
            // With --once and without.
            let mut live = Live::start(daemon.command(&[&BASIC[first..], &long].concat()));
            assert_eq!(live.end(), Some(1), "{}", live.log);
            assert!(
                live.log.contains("q_proj.weight': NaN at row 0, column 5"),
                "{}",
                live.log
            );
        }
    }
}
