//! `--keep-generations` takes the generations of this state, and nothing that others put there.

use std::fs;
use std::path::Path;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::disk_shim::{DiskShim, FailingCalls};
use qera_tests::output_folder::unseal;
use qera_tests::three_layers::{daemon_without_shards, once_with, write_rows_of_both_sites};

use super::BINARY;

/// Publishes one more generation in an output folder.
fn publish(daemon: &TestDaemon, out: &str, shard: u32) {
    write_rows_of_both_sites(daemon, &format!("shard-{shard}"), shard as f32);
    let options = once_with(&["--out", out, "--keep-generations", "3"]);
    expect(&daemon.run(&options), 0, &["published generation"]);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// The names in OUT/generations.
fn names(out: &Path) -> Vec<String> {
    let entries = fs::read_dir(out.join("generations")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn what_others_put_among_the_generations_stays() {
    let daemon = daemon_without_shards(BINARY);
    let (ours, other) = (daemon.path().join("ours"), daemon.path().join("other"));
    let in_ours = |name: &str| ours.join("generations").join(name);
    (0..2).for_each(|shard| publish(&daemon, "other", shard));
    // A user's folders: one without a manifest, one under a number that is written otherwise, one
    // with a manifest of somebody else's, a file, and the second generation of another state.
    for name in ["000000", "7", "000003"] {
        fs::create_dir_all(in_ours(name)).unwrap();
        fs::write(in_ours(name).join("notes"), "precious").unwrap();
    }
    fs::write(in_ours("000003/qera_manifest.json"), "{\"mine\": true}").unwrap();
    fs::write(in_ours("000001"), "a file").unwrap();
    copy(&other.join("generations/000002"), &in_ours("000002"));
    (2..8).for_each(|shard| publish(&daemon, "ours", shard));
    let expected = |ours: [&'static str; 3]| {
        let others = ["000000", "000001", "000002", "000003"];
        [&others[..], &ours, &["7"]].concat()
    };
    // The numbers that the user took are not used again.
    assert_eq!(names(&ours), expected(["000011", "000012", "000013"]));
    // One of ours under another number is none of ours, one of a program that sealed nothing is.
    fs::rename(in_ours("000012"), in_ours("000009")).unwrap();
    unseal(&in_ours("000011"));
    (8..10).for_each(|shard| publish(&daemon, "ours", shard));
    let mut left = expected(["000013", "000014", "000015"]);
    left.insert(4, "000009");
    assert_eq!(names(&ours), left);
}

/// Neither the start nor the end of a run fails by a generation that stays out of sight.
#[test]
fn what_cannot_be_removed_is_named_and_tried_by_the_next_run() {
    let shim = DiskShim::build();
    let daemon = daemon_without_shards(BINARY);
    (0..3).for_each(|shard| publish(&daemon, "out", shard));
    let hidden = |name: &&String| name.contains("unfinished-pruned");
    let names = || names(&daemon.path().join("out"));
    for shard in 3..5 {
        write_rows_of_both_sites(&daemon, &format!("shard-{shard}"), shard as f32);
        let failing = FailingCalls {
            call: "stat",
            path: "unfinished-pruned",
            count: 999,
            errno: 5,
        };
        let options = once_with(&["--out", "out", "--keep-generations", "3"]);
        let run = daemon.run_failing(&options, &shim, failing);
        let said = "warning: --keep-generations: ";
        expect(
            &run,
            0,
            &[said, "os error 5", "the next generation tries it again"],
        );
        assert_eq!(
            names().iter().filter(hidden).count(),
            shard - 2,
            "{}",
            run.log
        );
    }
    publish(&daemon, "out", 5);
    assert_eq!(names(), ["000004", "000005", "000006"]);
}
