//! A later run goes on where the one before ended: nothing is lost, nothing counts twice.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::output_folder::statistics_files;
use qera_tests::three_layers::{
    LIVE_OPTIONS, Q, daemon_with_shards, once_with, shard_path, write_rows_of_both_sites,
};

use super::BINARY;

/// `plan` counts no work with shards whose rows the state holds, and says how many they are.
#[test]
fn plan_counts_what_is_left() {
    let daemon = daemon_with_shards(BINARY);
    let plan = |live: bool| {
        let options = [&LIVE_OPTIONS[..], &["plan", "--log-format", "json"]].concat();
        let once: &[&str] = if live { &[] } else { &["--once"] };
        let plan = daemon.run(&[&options, once].concat());
        expect(&plan, 0, &[]);
        serde_json::from_str::<serde_json::Value>(&plan.output).unwrap()
    };
    let check = |shards: u64, held: u64| {
        let plan = plan(false);
        assert_eq!(
            (&plan["shards"], &plan["shards_held"]),
            (&shards.into(), &held.into())
        );
        let rows = 300 * (shards - held);
        assert_eq!(plan["sites"][0]["rows"], rows);
        let flops = plan["accumulate_flops"].as_f64().unwrap();
        assert!(
            (flops - (rows * (8 * 8 + 12 * 12)) as f64).abs() < 1.0,
            "{flops}"
        );
        assert_eq!(plan["stages"][0]["bytes"] == 0, shards == held, "in flight");
    };
    check(4, 0);
    expect(&daemon.run(&once_with(&[])), 0, &["4 shards folded"]);
    check(4, 4);
    // Those that come to a live run are like those that are there.
    assert!(plan(true)["stages"][0]["bytes"].as_u64().unwrap() > 0);
    let text = daemon.run(&[&LIVE_OPTIONS[..], &["plan"]].concat());
    assert!(
        text.output.contains("4 shards, 4 held by the state"),
        "{}",
        text.output
    );
    assert!(text.output.contains("work: 0.0 GFlop"), "{}", text.output);
    write_rows_of_both_sites(&daemon, "new", 9.0);
    check(5, 4);
    // Another content under a known name is a new shard.
    write_rows_of_both_sites(&daemon, "shard-0", 8.0);
    check(5, 3);
}

#[test]
fn a_second_run_with_nothing_new_publishes_nothing() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &["published generation 1"]);
    let again = daemon.run(&once_with(&[]));
    expect(&again, 0, &["continuing from", "nothing new", "4 shards"]);
    assert!(!again.log.contains("published") && !again.log.contains("folded"));
    // The generation gone, it is made again from the state alone.
    fs::remove_file(daemon.path().join("qera-out/current")).unwrap();
    expect(&daemon.run(&once_with(&[])), 0, &["published generation 2"]);
}

/// In two runs as in one: the state continues where the first ended.
#[test]
fn a_later_run_continues() {
    let (whole, parts) = (daemon_with_shards(BINARY), daemon_with_shards(BINARY));
    for shard in [2, 3] {
        let path = shard_path(&parts, &format!("shard-{shard}"));
        fs::rename(&path, path.with_extension("later")).unwrap();
    }
    expect(&parts.run(&once_with(&[])), 0, &["2 shards folded"]);
    for shard in [2, 3] {
        let path = shard_path(&parts, &format!("shard-{shard}"));
        fs::rename(path.with_extension("later"), &path).unwrap();
    }
    // What was folded need not be there any more.
    fs::remove_file(shard_path(&parts, "shard-0")).unwrap();
    expect(
        &parts.run(&once_with(&[])),
        0,
        &["continuing from", "4 shards folded"],
    );
    expect(&whole.run(&once_with(&[])), 0, &[]);
    let state = |daemon: &TestDaemon| statistics_files(&daemon.path().join("qera-out/state"));
    assert_eq!(state(&whole), state(&parts));
    assert!(whole.adapter("qera-out").bytes == parts.adapter("qera-out").bytes);
}

#[test]
fn content_counts_not_the_name() {
    let daemon = daemon_with_shards(BINARY);
    fs::copy(
        shard_path(&daemon, "shard-1"),
        shard_path(&daemon, "shard-1-again"),
    )
    .unwrap();
    expect(
        &daemon.run(&once_with(&[])),
        0,
        &["duplicate shard-1.safetensors", "4 shards folded"],
    );
    assert_eq!(daemon.adapter("qera-out").layer(Q)["rows"], 1200);
    // A known name with new content is a new shard; a touched file is not.
    write_rows_of_both_sites(&daemon, "shard-0", 7.0);
    let touched = shard_path(&daemon, "shard-2");
    let bytes = fs::read(&touched).unwrap();
    fs::remove_file(&touched).unwrap();
    fs::write(&touched, bytes).unwrap();
    expect(
        &daemon.run(&once_with(&[])),
        0,
        &["duplicate shard-2", "5 shards folded"],
    );
    assert_eq!(daemon.adapter("qera-out").layer(Q)["rows"], 1500);
}

#[test]
fn shards_are_consumed_when_they_are_saved() {
    let left = |daemon: &TestDaemon| {
        let entries = fs::read_dir(daemon.watched()).unwrap();
        let mut names: Vec<_> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let daemon = daemon_with_shards(BINARY);
    fs::write(shard_path(&daemon, "bad"), "garbage that is no shard").unwrap();
    expect(
        &daemon.run(&once_with(&["--consume", "delete"])),
        3,
        &["quarantined"],
    );
    assert_eq!(left(&daemon), ["bad.safetensors"], "what was refused stays");

    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    assert_eq!(left(&daemon).len(), 4, "kept");
    // What an earlier run has saved goes as well.
    write_rows_of_both_sites(&daemon, "shard-4", 5.0);
    expect(
        &daemon.run(&once_with(&["--consume", "move"])),
        0,
        &["5 shards"],
    );
    assert_eq!(left(&daemon), [".consumed"]);
    write_rows_of_both_sites(&daemon, "shard-4", 6.0);
    expect(
        &daemon.run(&once_with(&["--consume", "move"])),
        0,
        &["6 shards"],
    );
    let consumed = daemon.path().join("activations/.consumed");
    assert_eq!(
        fs::read_dir(consumed).unwrap().count(),
        6,
        "no name is lost"
    );
}

/// A shard that was accepted, not saved, and is gone: said with its rows, and counted again when it
/// comes back.
#[test]
fn what_is_lost_is_said() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    // As a crash leaves it: the journal has shards that no snapshot holds.
    let snapshots = daemon.path().join("qera-out/state/snapshots");
    fs::remove_dir_all(&snapshots).unwrap();
    let gone = shard_path(&daemon, "shard-2");
    let bytes = fs::read(&gone).unwrap();
    fs::remove_file(&gone).unwrap();
    expect(
        &daemon.run(&once_with(&[])),
        0,
        &["lost shard-2.safetensors: 300 rows", "3 shards folded"],
    );
    fs::write(&gone, bytes).unwrap();
    expect(
        &daemon.run(&once_with(&[])),
        0,
        &["folded shard-2", "4 shards folded"],
    );
    assert_eq!(daemon.adapter("qera-out").layer(Q)["rows"], 1200);
    expect(&daemon.run(&once_with(&[])), 0, &["nothing new"]);
}
