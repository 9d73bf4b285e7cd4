//! A shard that the disk does not give is not left out in silence, and one that is gone is gone.

use std::fs;

use qera_tests::daemon::expect;
use qera_tests::disk_shim::{DiskShim, FailingCalls};
use qera_tests::output_folder::files_below;
use qera_tests::three_layers::{
    daemon_with_shards, once_with, remove_shards, shard_path, write_rows_of_both_sites,
};

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

/// Links may lead to a disk that is not there: rows that nobody counts are not passed over.
#[test]
fn what_has_a_shard_s_name_and_is_no_file_is_named() {
    let daemon = daemon_with_shards(BINARY);
    std::os::unix::fs::symlink("nowhere", shard_path(&daemon, "link")).unwrap();
    fs::create_dir(shard_path(&daemon, "folder")).unwrap();
    let link = "shard link.safetensors: is no file but a link that leads nowhere";
    let folder = "shard folder.safetensors: is no file but a folder";
    let said = ["4 shards folded, 2 quarantined", link, folder];
    expect(&daemon.run(&once_with(&[])), 3, &said);
    let plan = [&["plan"], &once_with(&[])[..]].concat();
    expect(&daemon.run(&plan), 0, &[link, folder]);
}

/// A question about the folders of a run that the disk does not answer.
struct Unanswered<'a> {
    /// What the run before is given besides, and this one not.
    before: &'a [&'a str],
    /// Of both runs.
    both: &'a [&'a str],
    /// What the path contains.
    path: &'a str,
}

/// Whoever took no answer for "not there" would make W~ anew, publish beside a base that is there,
/// or remove the generation that is served.
#[test]
fn no_answer_about_what_is_there_is_no_absence() {
    let shim = DiskShim::build();
    for Unanswered { before, both, path } in [
        Unanswered {
            before: &["--emit-base=hf"],
            both: &[],
            path: "qera-out/base",
        },
        Unanswered {
            before: &[],
            both: &[],
            path: "qera-out/current",
        },
        Unanswered {
            before: &[],
            both: &["--rounding", "feedback"],
            path: "state/rounded",
        },
        Unanswered {
            before: &[],
            both: &[],
            path: "checkpoint",
        },
    ] {
        let daemon = daemon_with_shards(BINARY);
        let run = daemon.run(&once_with(&[before, both].concat()));
        expect(&run, 0, &["4 shards folded"]);
        write_rows_of_both_sites(&daemon, "more", 9.0);
        let kept = ["base", "generations", "state/rounded", "state/snapshots"];
        let files = || kept.map(|of| files_below(&daemon.path().join("qera-out").join(of)));
        let there = files();
        let failing = |count| FailingCalls {
            call: "stat",
            path,
            count,
            errno: 5,
        };
        let run = daemon.run_failing(&once_with(both), &shim, failing(100_000));
        expect(&run, 1, &[path, "os error 5"]);
        assert!(files() == there, "{path}: {}", run.log);
        let run = daemon.run_failing(&once_with(both), &shim, failing(2));
        expect(&run, 0, &["5 shards folded"]);
    }
}

#[test]
fn verify_names_what_it_cannot_look_at() {
    let shim = DiskShim::build();
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&["--emit-base=hf"])), 0, &[]);
    for path in [
        "qera-out/current",
        "qera-out/base",
        "adapter_model",
        "qera_base.json",
    ] {
        let failing = FailingCalls {
            call: "stat",
            path,
            count: 100_000,
            errno: 5,
        };
        let verify = ["verify", "--adapter", "qera-out/current"];
        let run = daemon.run_failing(&verify, &shim, failing);
        assert_eq!(run.code, 1, "{path}: {}", run.output);
        let said = run.output.contains(path) && run.output.contains("os error 5");
        assert!(said, "{path}: {}", run.output);
    }
}

/// A shard whose place among the consumed ones is not known stays where it is.
#[test]
fn what_cannot_be_moved_aside_stays() {
    let shim = DiskShim::build();
    for consume in ["move", "delete"] {
        let daemon = daemon_with_shards(BINARY);
        let failing = FailingCalls {
            call: "stat",
            path: ".consumed",
            count: 100_000,
            errno: 5,
        };
        let options = once_with(&["--consume", consume]);
        let run = daemon.run_failing(&options, &shim, failing);
        expect(
            &run,
            0,
            &["shard-1.safetensors cannot be consumed", "os error 5"],
        );
        assert!(shard_path(&daemon, "shard-1").exists(), "{}", run.log);
        expect(&daemon.run(&options), 0, &["4 shards"]);
        assert!(!shard_path(&daemon, "shard-1").exists());
    }
}
