//! A damaged snapshot: what is damaged goes back to the one before, nothing else does, and where
//! that loses rows the user decides.
#![allow(clippy::unwrap_used, reason = "tests only")]

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::disk_shim::{DiskShim, FailingCalls};
use qera_tests::output_folder::{newest_snapshot, statistics_files};
use qera_tests::three_layers::{DOWN, Q, once_with, write_rows_of_both_sites};

use super::unreadable::{files_of, state_of, state_of_consumed_shards};

/// Flips a bit of a file of the newest snapshot; returns its path from the snapshot on.
fn damage(daemon: &TestDaemon, file: &str) -> String {
    let snapshot = newest_snapshot(&state_of(daemon));
    let path = snapshot.join(file);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).unwrap();
    format!("{}/{file}", snapshot.file_name().unwrap().display())
}

fn rows(daemon: &TestDaemon) -> [u64; 2] {
    let adapter = daemon.adapter("qera-out");
    [Q, DOWN].map(|module| adapter.layer(module)["rows"].as_u64().unwrap())
}

/// DOWN has the first site.
const OF_DOWN: &str = "00000.statistics.safetensors";

#[test]
fn a_loss_is_refused_until_it_is_accepted_and_only_the_damaged_site_has_it() {
    for file in [OF_DOWN, "index.json"] {
        let daemon = state_of_consumed_shards("delete");
        let damaged = damage(&daemon, file);
        let before = files_of(&daemon);
        for _ in 0..2 {
            let said = [
                "damaged",
                "1 shards with 300 rows would be lost, 'shard-2.safetensors' first",
                "activations",
                "--accept-loss",
            ];
            expect(&daemon.run(&once_with(&[])), 4, &said);
            assert!(files_of(&daemon) == before, "{damaged}");
        }
        fs::remove_file(daemon.path().join("qera-out/current")).unwrap();
        let accepting = once_with(&["--accept-loss"]);
        let of_one = file == OF_DOWN;
        let said = if of_one {
            "300 rows of shard-2.safetensors are lost"
        } else {
            "lost shard-2.safetensors: 300 rows"
        };
        expect(&daemon.run(&accepting), 0, &[said, "published"]);
        let of_q = if of_one { 900 } else { 600 };
        assert_eq!(rows(&daemon), [of_q, 600], "{damaged}");
        // It is settled then.
        expect(&daemon.run(&once_with(&[])), 0, &["nothing new"]);
        write_rows_of_both_sites(&daemon, "shard-3", 3.0);
        expect(&daemon.run(&once_with(&[])), 0, &["published"]);
        assert_eq!(rows(&daemon), [of_q + 300, 900], "{damaged}");
    }
}

/// Shards that were moved are folded again from where they are, for the damaged site alone, and the
/// state is what it was.
#[test]
fn what_was_moved_is_folded_again() {
    let daemon = state_of_consumed_shards("move");
    let whole = statistics_files(&state_of(&daemon));
    damage(&daemon, OF_DOWN);
    let run = daemon.run(&once_with(&["--consume", "move"]));
    expect(&run, 0, &["are damaged", "1 more are folded again"]);
    assert!(!run.log.contains("lost"), "{}", run.log);
    assert!(statistics_files(&state_of(&daemon)) == whole);
}

#[test]
fn no_snapshot_is_whole() {
    let daemon = state_of_consumed_shards("move");
    for snapshot in fs::read_dir(state_of(&daemon).join("snapshots")).unwrap() {
        fs::write(snapshot.unwrap().path().join(OF_DOWN), "").unwrap();
    }
    let said = [
        "no snapshot is whole",
        "every shard is still there",
        "--accept-loss",
    ];
    expect(&daemon.run(&once_with(&[])), 4, &said);
    let whole = daemon.adapter("qera-out").bytes;
    fs::remove_file(daemon.path().join("qera-out/current")).unwrap();
    let run = daemon.run(&once_with(&["--accept-loss"]));
    expect(&run, 0, &["3 more are folded again", "published"]);
    assert!(daemon.adapter("qera-out").bytes == whole);
}

#[test]
fn a_file_that_stays_unreadable_is_given_up_where_its_loss_is_accepted() {
    let shim = DiskShim::build();
    let daemon = state_of_consumed_shards("delete");
    let newest = newest_snapshot(&state_of(&daemon));
    let failing = FailingCalls {
        call: "open",
        path: &format!("{}/{OF_DOWN}", newest.file_name().unwrap().display()),
        count: 999,
        errno: 5,
    };
    fs::remove_file(daemon.path().join("qera-out/current")).unwrap();
    let accepting = once_with(&["--accept-loss"]);
    let run = daemon.run_failing(&accepting, &shim, failing);
    expect(
        &run,
        0,
        &["cannot be read", "300 rows of shard-2.safetensors are lost"],
    );
    assert_eq!(rows(&daemon), [900, 600]);
}
