//! A shard that the disk does not give is not left out in silence, and one that is gone is gone.

use std::fs;

use qera_tests::daemon::expect;
use qera_tests::disk_shim::{DiskShim, FailingCalls};
use qera_tests::three_layers::{daemon_with_shards, once_with, remove_shards, shard_path};

use super::BINARY;

fn on_shard(call: &str, count: usize) -> FailingCalls<'_> {
    FailingCalls {
        call,
        path: "shard-1.safetensors",
        count,
        errno: 5,
    }
}

#[test]
fn it_is_tried_again_and_then_named() {
    let shim = DiskShim::build();
    for call in ["stat", "open", "read"] {
        let daemon = daemon_with_shards(BINARY);
        let run = daemon.run_failing(&once_with(&[]), &shim, on_shard(call, 999));
        let said = [
            "shard-1.safetensors: ",
            "os error 5",
            "3 shards folded, 1 quarantined",
        ];
        expect(&run, 3, &said);
        expect(&daemon.run(&once_with(&[])), 0, &["4 shards folded"]);

        let daemon = daemon_with_shards(BINARY);
        let run = daemon.run_failing(&once_with(&[]), &shim, on_shard(call, 2));
        expect(&run, 0, &["4 shards folded"]);
    }
}

#[test]
fn alone_it_is_named_too() {
    let shim = DiskShim::build();
    let daemon = daemon_with_shards(BINARY);
    let bytes = fs::read(shard_path(&daemon, "shard-1")).unwrap();
    remove_shards(&daemon);
    fs::write(shard_path(&daemon, "shard-1"), bytes).unwrap();
    let run = daemon.run_failing(&once_with(&[]), &shim, on_shard("stat", 999));
    expect(
        &run,
        1,
        &["shard-1.safetensors: ", "os error 5", "(1 refused)"],
    );
    let plan = [&["plan"], &once_with(&[])[..]].concat();
    let run = daemon.run_failing(&plan, &shim, on_shard("stat", 999));
    expect(&run, 0, &["shard-1.safetensors: ", "os error 5"]);
}

/// A link to nothing is what a file is that went while the folder was listed.
#[test]
fn what_is_gone_is_no_failure() {
    let daemon = daemon_with_shards(BINARY);
    std::os::unix::fs::symlink("nowhere", shard_path(&daemon, "gone")).unwrap();
    expect(&daemon.run(&once_with(&[])), 0, &["4 shards folded"]);
}
