//! What the disk does not give is never taken for damage: it is tried three times, then it ends the
//! start, and nothing is touched.
#![allow(clippy::unwrap_used, reason = "tests only")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::disk_shim::{DiskShim, FAILURES, FailingCalls};
use qera_tests::output_folder::{files_below, newest_snapshot};
use qera_tests::three_layers::{
    DOWN, Q, daemon_without_shards, once_with, shard_path, write_rows_of_both_sites,
};

use super::BINARY;

/// A state of two snapshots, of shards 0 and 1 and of 2 besides; their files are consumed.
pub(super) fn state_of_consumed_shards(consume: &str) -> TestDaemon {
    let daemon = daemon_without_shards(BINARY);
    let consuming = once_with(&["--consume", consume]);
    for shards in [&[0, 1][..], &[2]] {
        for shard in shards {
            write_rows_of_both_sites(&daemon, &format!("shard-{shard}"), *shard as f32);
        }
        expect(&daemon.run(&consuming), 0, &[]);
    }
    assert!(!shard_path(&daemon, "shard-2").exists());
    daemon
}

pub(super) fn state_of(daemon: &TestDaemon) -> PathBuf {
    daemon.path().join("qera-out/state")
}

/// Every file of a state that a run goes on from, with its content.
pub(super) fn files_of(daemon: &TestDaemon) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = files_below(&state_of(daemon).join("snapshots"));
    for name in ["journal", "sites.json"] {
        let path = state_of(daemon).join(name);
        files.insert(path.clone(), fs::read(path).unwrap());
    }
    files
}

#[test]
fn what_the_disk_does_not_give_ends_the_start_and_nothing_is_touched() {
    let shim = DiskShim::build();
    let daemon = state_of_consumed_shards("delete");
    let before = files_of(&daemon);
    let newest = newest_snapshot(&state_of(&daemon));
    let newest = newest.file_name().unwrap().to_str().unwrap();
    let files = [
        "index.json",
        "00000.statistics.safetensors",
        "00001.statistics.safetensors",
    ];
    let mut errors = FAILURES.into_iter().cycle();
    for file in files {
        let path = &format!("{newest}/{file}");
        for call in ["open", "read"] {
            let errno = errors.next().unwrap();
            let failing = |count| FailingCalls {
                call,
                path,
                count,
                errno,
            };
            let run = daemon.run_failing(&once_with(&[]), &shim, failing(999));
            expect(&run, 1, &[path, &format!("os error {errno}")]);
            assert!(files_of(&daemon) == before, "{call} {path}: {}", run.log);
            // The third try of the first reader succeeds.
            let run = daemon.run_failing(&once_with(&[]), &shim, failing(2));
            expect(&run, 0, &["nothing new", "3 shards"]);
            assert!(files_of(&daemon) == before, "{call} {path}: {}", run.log);
        }
    }
    let rows = |module| daemon.adapter("qera-out").layer(module)["rows"].clone();
    assert_eq!((rows(Q), rows(DOWN)), (900.into(), 900.into()));
}

/// A shard that the journal has and no snapshot holds is not lost because the disk fails once.
#[test]
fn a_shard_that_cannot_be_read_is_not_lost() {
    let shim = DiskShim::build();
    for call in ["open", "read"] {
        let daemon = daemon_without_shards(BINARY);
        for shard in 0..3 {
            write_rows_of_both_sites(&daemon, &format!("shard-{shard}"), shard as f32);
        }
        expect(&daemon.run(&once_with(&[])), 0, &[]);
        // As a crash leaves it.
        fs::remove_dir_all(state_of(&daemon).join("snapshots")).unwrap();
        let journal = fs::read(state_of(&daemon).join("journal")).unwrap();
        // The listing reads the header first, and that of an unreadable shard is met again there.
        let failing = FailingCalls {
            call,
            path: "shard-1.safetensors",
            count: 999,
            errno: 5,
        };
        let run = daemon.run_failing(&once_with(&[]), &shim, failing);
        expect(&run, 1, &["shard-1.safetensors", "os error 5"]);
        assert!(fs::read(state_of(&daemon).join("journal")).unwrap() == journal);
        expect(&daemon.run(&once_with(&[])), 0, &["3 shards"]);
        assert_eq!(daemon.adapter("qera-out").layer(Q)["rows"], 900);
        // Unless that is accepted.
        fs::remove_dir_all(state_of(&daemon).join("snapshots")).unwrap();
        fs::remove_file(daemon.path().join("qera-out/current")).unwrap();
        let accepting = once_with(&["--accept-loss"]);
        let run = daemon.run_failing(&accepting, &shim, failing);
        expect(
            &run,
            3,
            &["lost shard-1.safetensors: 300 rows", "published"],
        );
    }
}
