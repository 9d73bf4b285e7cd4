//! A terminal that closes ends the daemon as SIGTERM does; `nohup` keeps it.

use std::process::Command;

use qera_tests::event::{event, folded, published};
use qera_tests::live::Live;
use qera_tests::three_layers::{LIVE_OPTIONS, daemon_without_shards, write_rows_of_both_sites};

use super::{BINARY, RunningDaemon, begin_on_three_layers};

#[test]
fn a_hang_up_ends_it_cleanly() {
    let RunningDaemon { daemon, mut live } = begin_on_three_layers(&[]);
    write_rows_of_both_sites(&daemon, "a", 0.0);
    live.wait_for(&folded("a"));
    // The terminal's and the shell's.
    live.send("HUP");
    live.send("HUP");
    assert_eq!(live.end(), Some(0), "{}", live.log);
    assert!(
        live.heard(&event("stopping")) && live.heard(&published(1)),
        "{}",
        live.log
    );
}

#[test]
fn one_that_was_ignored_at_the_start_stays_ignored() {
    let daemon = daemon_without_shards(BINARY);
    let mut command = Command::new("sh");
    command.current_dir(daemon.path());
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", BINARY]);
    command.args(LIVE_OPTIONS);
    let mut live = Live::start(command);
    live.wait_for(&event("watching"));
    live.send("HUP");
    write_rows_of_both_sites(&daemon, "a", 0.0);
    live.wait_for(&folded("a"));
    assert!(!live.heard(&event("stopping")), "{}", live.log);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
}
