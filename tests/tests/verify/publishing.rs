//! The check before `current` is switched: what does not pass is not published, the run goes on and
//! says so.

use std::fs;
use std::path::Path;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::event::event;
use qera_tests::live::Live;
use qera_tests::output_folder::generations;
use qera_tests::three_layers::{
    Q, daemon_with_shards, daemon_without_shards, live_with, once_with, write_rows_of_both_sites,
};

use super::BINARY;

/// Another shape for a weight of the base, renamed into place; returns what was there. Its length
/// and the time when it was written, which a start looks at, are as they were.
fn damage_base(daemon: &TestDaemon) -> Vec<u8> {
    let path = daemon.path().join("qera-out/base/model.safetensors");
    let before = fs::read(&path).unwrap();
    let place =
        |of: &[u8], words: &str| of.windows(words.len()).position(|w| w == words.as_bytes());
    let mut bytes = before.clone();
    let q = place(&bytes, &format!("\"{Q}.weight\"")).unwrap();
    let shape = q + place(&bytes[q..], "[6,8]").unwrap();
    bytes[shape..shape + 5].copy_from_slice(b"[8,6]");
    let aside = daemon.path().join("aside");
    fs::write(&aside, bytes).unwrap();
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    let file = fs::File::options().append(true).open(&aside).unwrap();
    file.set_modified(written).unwrap();
    fs::rename(&aside, &path).unwrap();
    before
}

fn mend_base(daemon: &TestDaemon, bytes: &[u8]) {
    fs::write(daemon.path().join("qera-out/base/model.safetensors"), bytes).unwrap();
}

fn assert_current(daemon: &TestDaemon, number: u64) {
    let out = daemon.path().join("qera-out");
    let current = fs::read_link(out.join("current")).unwrap();
    assert_eq!(current, Path::new(&format!("generations/{number:06}")));
    let entries = fs::read_dir(out.join("generations")).unwrap();
    assert_eq!(
        entries.count(),
        generations(&out).len(),
        "something is left half done"
    );
}

#[test]
fn once_exits_1_and_the_generation_before_stays() {
    let daemon = daemon_with_shards(BINARY);
    let options = once_with(&["--emit-base"]);
    expect(&daemon.run(&options), 0, &["published generation 1"]);
    let base = damage_base(&daemon);
    write_rows_of_both_sites(&daemon, "shard-5", 5.0);
    let rejected = daemon.run(&options);
    expect(
        &rejected,
        1,
        &[
            "generation 2 is not published: 1 problems in its files; adapter_model.safetensors: model.layers.0.self_attn.q_proj: A and B fit [6, 8]",
            "error: the last generation did not pass its check and is not published",
        ],
    );
    assert!(!rejected.log.contains("nothing new"), "{}", rejected.log);
    assert_current(&daemon, 1);
    let status = daemon.status();
    assert_eq!(status["rejected"]["generation"], 2, "{status}");
    assert_eq!(status["rejected"]["problems"].as_array().unwrap().len(), 1);
    let table = daemon.run(&["status"]).output;
    assert!(
        table.contains("generation 2 is not published: 1 problems"),
        "{table}"
    );
    // Nothing of it counts as done.
    let solved = daemon.run(&[&["solve"], &options[1..]].concat());
    expect(&solved, 1, &["generation 2 is not published"]);
    mend_base(&daemon, &base);
    expect(
        &daemon.run(&options),
        0,
        &["published generation 2", "5 shards folded"],
    );
    assert_current(&daemon, 2);
    assert!(daemon.status()["rejected"].is_null());
    expect(&daemon.run(&options), 0, &["nothing new"]);
}

/// A live run that has published what the first shard brought.
struct LiveRun {
    daemon: TestDaemon,
    live: Live,
    /// Number of the current generation.
    number: u64,
}

fn begin() -> LiveRun {
    let daemon = daemon_without_shards(BINARY);
    let more = ["--emit-base", "--idle-publish", "0.5"];
    let live = Live::start(daemon.command(&live_with(&more)));
    write_rows_of_both_sites(&daemon, "shard-0", 0.0);
    let status = daemon.wait_until_idle(1);
    LiveRun {
        number: status["generation"].as_u64().unwrap(),
        daemon,
        live,
    }
}

#[test]
fn a_base_that_is_gone_is_no_reason_to_publish_without_it() {
    let LiveRun {
        daemon,
        mut live,
        number,
    } = begin();
    let base = daemon.path().join("qera-out/base");
    fs::rename(base, daemon.path().join("gone")).unwrap();
    write_rows_of_both_sites(&daemon, "shard-1", 1.0);
    let rejected = live.wait_for(&event("rejected").with("generation", number + 1));
    let problem = rejected["problems"][0].as_str().unwrap();
    assert!(problem.contains("base: checkpoint "), "{rejected}");
    assert_eq!(live.stop(), Some(1), "{}", live.log);
    assert_current(&daemon, number);
}

/// The run goes on: the next generation is tried as usual, and takes the number.
#[test]
fn a_live_run_goes_on() {
    let LiveRun {
        daemon,
        mut live,
        number,
    } = begin();
    let base = damage_base(&daemon);
    write_rows_of_both_sites(&daemon, "shard-1", 1.0);
    live.wait_for(&event("rejected").with("generation", number + 1));
    let status = daemon.wait_until_idle(2);
    assert_eq!(status["generation"], number, "{status}");
    assert_eq!(status["rejected"]["generation"], number + 1, "{status}");
    assert_current(&daemon, number);
    mend_base(&daemon, &base);
    write_rows_of_both_sites(&daemon, "shard-2", 2.0);
    let published = live.wait_for(&event("published").with("shards", 3));
    assert_eq!(published["generation"], number + 1, "{}", live.log);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert!(daemon.status()["rejected"].is_null());
}

/// At the end it is tried once more, without new shards: the reason may be gone.
#[test]
fn the_end_of_a_live_run_tries_again() {
    let LiveRun {
        daemon,
        mut live,
        number,
    } = begin();
    let base = damage_base(&daemon);
    write_rows_of_both_sites(&daemon, "shard-1", 1.0);
    daemon.wait_until_idle(2);
    mend_base(&daemon, &base);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    // The folder was idle in between, and it was not tried again and again.
    let tries = live.count(&event("rejected").with("generation", number + 1));
    assert!((1..=2).contains(&tries), "{}", live.log);
    let published = event("published").with("generation", number + 1);
    assert!(live.heard(&published.with("shards", 2)), "{}", live.log);
    assert_current(&daemon, number + 1);
}
