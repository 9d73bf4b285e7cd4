//! What arrives in a watched folder: files that grow, locks, folders that go, bad shards, odd
//! names.

use core::time::Duration;
use std::fs;

use qera_tests::daemon::TestDaemon;
use qera_tests::event::{event, folded, published, quarantined};
use qera_tests::live::{Live, arrive};
use qera_tests::safetensors_file::{Metadata, TensorToWrite, write_safetensors};
use qera_tests::three_layers::{
    DOWN, LIVE_OPTIONS, Q, rename_in, shard_path, sine_values, write_rows_of_both_sites,
};

use super::{BINARY, RunningDaemon, begin_on_three_layers};

fn pause() {
    std::thread::sleep(Duration::from_millis(300));
}

#[test]
fn a_file_that_grows_is_taken_when_it_is_whole() {
    let RunningDaemon { daemon, mut live } = begin_on_three_layers(&[]);
    write_rows_of_both_sites(&daemon, "a", 0.0);
    live.wait_for(&folded("a"));
    write_rows_of_both_sites(&daemon, "whole", 1.0);
    live.wait_for(&folded("whole"));
    let mut bytes = fs::read(shard_path(&daemon, "whole")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1; // Another content.
    let grown = shard_path(&daemon, "grown");
    for part in 1..=3 {
        fs::write(&grown, &bytes[..bytes.len() * part / 4]).unwrap();
        pause();
    }
    fs::write(&grown, &bytes).unwrap();
    live.wait_for(&folded("grown"));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert!(!live.heard(&event("shard-quarantined")), "{}", live.log);
}

/// vLLM writes so: in place, under a lock on FILE.lock that stays behind.
#[test]
fn a_locked_file_is_left_to_its_producer() {
    let RunningDaemon { daemon, mut live } = begin_on_three_layers(&["--rescan-interval", "0.2"]);
    write_rows_of_both_sites(&daemon, "a", 0.0);
    live.wait_for(&folded("a"));
    let path = shard_path(&daemon, "held");
    let lock = fs::File::create(path.with_extension("safetensors.lock")).unwrap();
    lock.lock().unwrap();
    write_rows_of_both_sites(&daemon, "held", 1.0);
    write_rows_of_both_sites(&daemon, "next", 2.0);
    live.wait_for(&folded("next"));
    pause();
    assert!(!live.heard(&folded("held")), "{}", live.log);
    drop(lock);
    live.wait_for(&folded("held"));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
}

#[test]
fn a_folder_that_goes_and_comes_back_is_watched_again() {
    for mode in ["events", "poll"] {
        let RunningDaemon { daemon, mut live } =
            begin_on_three_layers(&["--watch-mode", mode, "--rescan-interval", "0.2"]);
        write_rows_of_both_sites(&daemon, "a", 0.0);
        live.wait_for(&folded("a"));
        fs::remove_dir_all(daemon.watched()).unwrap();
        let gone = event("warning").with("subject", "watched folder");
        live.wait_for(&gone.containing("message", "read the watched folder"));
        fs::create_dir(daemon.watched()).unwrap();
        write_rows_of_both_sites(&daemon, "b", 1.0);
        live.wait_for(&folded("b"));
        live.wait_for(&published(2));
        assert_eq!(live.stop(), Some(0), "{}", live.log);
        assert_eq!(daemon.adapter("qera-out").layer(Q)["rows"], 600);
    }
}

/// Bad shards are set aside, in any order, and the run goes on; in the end it is no failure.
#[test]
fn bad_shards_do_no_harm() {
    let RunningDaemon { daemon, mut live } = begin_on_three_layers(&[
        "--rescan-interval",
        "0.2",
        "--threads",
        "1",
        "--memory-budget",
        "18MiB",
    ]);
    let write = |name: &str, tensor: TensorToWrite, metadata: &[Metadata<'_>]| {
        write_safetensors(&shard_path(&daemon, name), &[tensor], metadata);
    };
    let row = TensorToWrite::f32(Q, &[1, 8], &sine_values(8, 0.0));
    write(
        "0-other",
        row.clone(),
        &[Metadata::new("qera.model", "another")],
    );
    live.wait_for(&quarantined("shard 0-other"));
    write_rows_of_both_sites(&daemon, "a", 0.0);
    live.wait_for(&folded("a"));
    let nan = TensorToWrite::f32(Q, &[1, 8], &[f32::NAN; 8]);
    write("nan", nan, &[]);
    live.wait_for(&quarantined("shard nan.safetensors: tensor"));
    let large = TensorToWrite::f32(Q, &[200_000, 8], &sine_values(1_600_000, 0.0));
    write("large", large, &[]);
    live.wait_for(&quarantined("large").containing("message", "write smaller shards"));
    let joined = format!(r#"[["{Q}","{DOWN}"]]"#);
    write("joined", row, &[Metadata::new("qera.shares", &joined)]);
    live.wait_for(&quarantined("joined").containing("message", "cannot share an input"));
    write_rows_of_both_sites(&daemon, "b", 1.0);
    live.wait_for(&folded("b"));
    live.wait_for(&published(2));
    let status = daemon.run(&["status"]);
    assert!(status.output.contains("4 quarantined"), "{}", status.output);
    assert!(status.output.contains("quarantined: shard nan.safetensors"));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert_eq!(live.count(&event("shard-quarantined")), 4, "{}", live.log);
    assert_eq!(daemon.adapter("qera-out").layer(Q)["rows"], 600);
}

/// Modules that later shards declare to share an input are fed by either key, though their sites
/// are separate.
#[test]
fn what_is_shared_may_be_known_late() {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let folder = daemon.path().join("checkpoint");
    fs::create_dir(&folder).unwrap();
    let weights = ["left", "right"]
        .map(|n| TensorToWrite::f32(&format!("enc.{n}.weight"), &[6, 8], &sine_values(48, 0.3)));
    write_safetensors(&folder.join("model.safetensors"), &weights, &[]);
    let rows = |phase: f32| TensorToWrite::f32("enc.left", &[300, 8], &sine_values(2400, phase));
    let mut live = Live::start(daemon.command(&LIVE_OPTIONS));
    live.wait_for(&event("watching"));
    let linears = ["left", "right"].map(|n| format!(r#"{{"name":"enc.{n}","in":8,"out":6}}"#));
    let linears = format!("[{}]", linears.join(","));
    let listed = [Metadata::new("qera.linears", &linears)];
    write_safetensors(&shard_path(&daemon, "a"), &[rows(0.0)], &listed);
    live.wait_for(&folded("a"));
    let shares = [Metadata::new(
        "qera.shares",
        r#"[["enc.left","enc.right"]]"#,
    )];
    write_safetensors(&shard_path(&daemon, "b"), &[rows(1.0)], &shares);
    live.wait_for(&folded("b"));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let adapter = daemon.adapter("qera-out");
    assert_eq!(adapter.layer("enc.left")["rows"], 600);
    assert_eq!(adapter.layer("enc.right")["rows"], 300);
}

/// A shard that names nothing that an option selects is waited beyond, and said once.
#[test]
fn a_selection_that_no_shard_has_named_is_waited_for() {
    let more = ["--include", "*.down_proj", "--rescan-interval", "0.1"];
    let RunningDaemon { daemon, mut live } = begin_on_three_layers(&more);
    let q = TensorToWrite::f32(Q, &[300, 8], &sine_values(2400, 0.0));
    rename_in(&daemon, "a", &[q]);
    let waits = event("warning").with("subject", "waiting for shards");
    live.wait_for(&waits);
    pause();
    write_rows_of_both_sites(&daemon, "b", 1.0);
    live.wait_for(&folded("b"));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert_eq!(live.count(&waits), 1, "{}", live.log);
}

/// A name that is no text could be folded and never consumed: it is set aside, and said once.
#[test]
fn names_that_are_no_text_are_set_aside_once() {
    use std::os::unix::ffi::OsStrExt;
    let RunningDaemon { daemon, mut live } = begin_on_three_layers(&["--rescan-interval", "0.2"]);
    write_rows_of_both_sites(&daemon, "a", 0.0);
    live.wait_for(&folded("a"));
    write_rows_of_both_sites(&daemon, "b", 1.0);
    live.wait_for(&folded("b"));
    let odd = std::ffi::OsStr::from_bytes(b"odd\xff\n.safetensors");
    let rows = TensorToWrite::f32(Q, &[20, 8], &sine_values(160, 4.0));
    let aside = daemon.path().join("aside");
    write_safetensors(&aside, &[rows], &[]);
    fs::rename(aside, daemon.watched().join(odd)).unwrap();
    let escaped = quarantined("shard odd\\xff\\n.safetensors: its name is no UTF-8 text");
    live.wait_for(&escaped);
    pause();
    pause();
    // Content that came before is reported as such, and counts once.
    arrive(&shard_path(&daemon, "b"), &daemon.watched(), "c");
    live.wait_for(&event("duplicate").with("shard", "c.safetensors"));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert_eq!(live.count(&event("duplicate")), 1, "{}", live.log);
    assert_eq!(live.count(&escaped), 1, "{}", live.log);
    assert_eq!(daemon.adapter("qera-out").layer(Q)["rows"], 600);
}
