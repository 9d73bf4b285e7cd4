//! A shard that the disk does not give is named once and tried again with each listing.

use qera_tests::disk_shim::{DiskShim, FailingCalls};
use qera_tests::event::{event, folded};
use qera_tests::live::Live;
use qera_tests::three_layers::{daemon_without_shards, live_with, write_rows_of_both_sites};

use super::BINARY;

#[test]
fn it_is_taken_when_the_disk_gives_it() {
    let shim = DiskShim::build();
    for (call, first) in [
        ("stat", true),
        ("stat", false),
        ("open", false),
        ("read", false),
    ] {
        let daemon = daemon_without_shards(BINARY);
        let mut command = daemon.command(&live_with(&["--rescan-interval", "0.2"]));
        // Three tries a listing, and several listings.
        let failing = FailingCalls {
            call,
            path: "late.safetensors",
            count: 12,
            errno: 5,
        };
        shim.fail(&mut command, failing);
        let mut live = Live::start(command);
        live.wait_for(&event("watching"));
        if !first {
            write_rows_of_both_sites(&daemon, "a", 0.0);
            live.wait_for(&folded("a"));
        }
        write_rows_of_both_sites(&daemon, "late", 1.0);
        let said = event("warning").containing("message", "late.safetensors: ");
        let said = said
            .containing("message", "os error 5")
            .containing("message", "tried again");
        live.wait_for(&said);
        live.wait_for(&folded("late"));
        assert_eq!(live.stop(), Some(0), "{call}: {}", live.log);
        assert_eq!(live.count(&said), 1, "{call}: {}", live.log);
        assert!(
            !live.heard(&event("shard-quarantined")),
            "{call}: {}",
            live.log
        );
    }
}

/// Ended before that, it says that it leaves something: a supervisor must not take that for done.
#[test]
fn what_is_left_at_the_end_is_said_by_the_exit_code() {
    let shim = DiskShim::build();
    for before in [0, 1] {
        let daemon = daemon_without_shards(BINARY);
        let options = live_with(&["--rescan-interval", "0.2"]);
        let mut command = daemon.command(&options);
        let failing = FailingCalls {
            call: "stat",
            path: "late.safetensors",
            count: 1_000_000,
            errno: 5,
        };
        shim.fail(&mut command, failing);
        let mut live = Live::start(command);
        live.wait_for(&event("watching"));
        for shard in 0..before {
            write_rows_of_both_sites(&daemon, "a", shard as f32);
            live.wait_for(&folded("a"));
        }
        write_rows_of_both_sites(&daemon, "late", 1.0);
        let said = event("warning").containing("message", "late.safetensors: ");
        live.wait_for(&said);
        assert_eq!(live.stop(), Some(3), "{before}: {}", live.log);
        let left = event("warning").containing("message", "left for the next start");
        assert!(live.heard(&left), "{before}: {}", live.log);
        let mut live = Live::start(daemon.command(&options));
        live.wait_for(&folded("late"));
        assert_eq!(live.stop(), Some(0), "{before}: {}", live.log);
    }
}
