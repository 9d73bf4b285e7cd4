//! A generation or a snapshot that cannot be removed is named and tried again: it ends no run.

use std::fs;

use qera_tests::disk_shim::{Action, DiskShim, Fault};
use qera_tests::event::{event, published};
use qera_tests::live::Live;
use qera_tests::output_folder::generations;
use qera_tests::three_layers::{
    daemon_without_shards, live_with, once_with, write_rows_of_both_sites,
};

use super::BINARY;

/// What is said to fail.
const GENERATIONS: &str = "--keep-generations";

#[test]
fn what_cannot_be_removed_is_named_and_tried_again() {
    let shim = DiskShim::build();
    for (call, path, times, subject) in [
        ("rename", "pruned-000001", 1, GENERATIONS),
        ("unlink", "pruned-000001", 3, GENERATIONS),
        ("list", "pruned-000001", 3, GENERATIONS),
        ("unlink", "snapshots/000001", 3, "state"),
    ] {
        let fault = Fault {
            call,
            path,
            nth: 1,
            times,
            action: Action::Fail(5),
        };
        ends_no_run(&shim, fault, subject);
    }
}

fn ends_no_run(shim: &DiskShim, fault: Fault<'_>, subject: &str) {
    let daemon = daemon_without_shards(BINARY);
    let options = ["--idle-publish", "0.2", "--keep-generations", "3"];
    let mut command = daemon.command(&live_with(&options));
    shim.fault(&mut command, fault);
    let mut live = Live::start(command);
    live.wait_for(&event("watching"));
    for shard in 1..=5 {
        write_rows_of_both_sites(&daemon, &format!("shard-{shard}"), shard as f32);
        live.wait_for(&published(shard));
    }
    assert_eq!(live.stop(), Some(0), "{fault:?}: {}", live.log);
    let said = event("warning").with("subject", subject);
    let said = said.containing("message", "tries it again");
    assert_eq!(live.count(&said), 1, "{fault:?}: {}", live.log);
    let out = daemon.path().join("qera-out");
    let names_in = |folder| fs::read_dir(out.join(folder)).unwrap().count();
    let kept = generations(&out);
    assert_eq!((kept.len(), names_in("generations")), (3, 3), "{kept:?}");
    // A live run makes fewer snapshots than generations.
    write_rows_of_both_sites(&daemon, "late", 9.0);
    let run = daemon.run(&once_with(&["--keep-generations", "3"]));
    assert_eq!(run.code, 0, "{fault:?}: {}", run.log);
    assert_eq!(names_in("state/snapshots"), 2, "{fault:?}");
    let verdict = daemon.verify(&[]);
    assert_eq!(verdict.code, 0, "{fault:?}: {}", verdict.output);
}
