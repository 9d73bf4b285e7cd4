//! Producers that are faster than the daemon are asked to pause, by a file in the watched folder.

use qera_tests::event::{ExpectedEvent, event, folded};
use qera_tests::live::Live;
use qera_tests::three_layers::{daemon_without_shards, live_with, write_rows_of_both_sites};

use super::BINARY;

fn said(text: &str) -> ExpectedEvent {
    event("warning")
        .with("subject", "watched folder")
        .containing("message", text)
}

#[test]
fn it_is_there_while_too_much_waits_and_gone_when_it_is_taken() {
    let daemon = daemon_without_shards(BINARY);
    let pause = daemon.watched().join(".qera-pause");
    // A killed run leaves the file so.
    std::fs::write(&pause, "").unwrap();
    let shards = ["a", "b", "c", "d"];
    for (phase, name) in (0_u8..).zip(shards) {
        write_rows_of_both_sites(&daemon, name, f32::from(phase));
    }
    // Less than one of them.
    let mut live = Live::start(daemon.command(&live_with(&["--pause-above", "1KiB"])));
    for name in shards {
        live.wait_for(&folded(name));
    }
    live.wait_for(&said("producers may go on"));
    assert!(!pause.exists());
    write_rows_of_both_sites(&daemon, "late", 9.0);
    live.wait_for(&said("producers are asked to pause"));
    live.wait_for(&folded("late"));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert!(!pause.exists());
}

/// What waits within the limit asks nobody, and `--once` takes a file away that a killed run left.
#[test]
fn nobody_is_asked_without_need() {
    let daemon = daemon_without_shards(BINARY);
    let pause = daemon.watched().join(".qera-pause");
    std::fs::write(&pause, "").unwrap();
    write_rows_of_both_sites(&daemon, "a", 0.0);
    let ended = daemon.run(&qera_tests::three_layers::once_with(&[
        "--pause-above",
        "1",
    ]));
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert!(
        !ended.log.contains("asked to pause") && !pause.exists(),
        "{}",
        ended.log
    );
    let mut live = Live::start(daemon.command(&live_with(&[])));
    write_rows_of_both_sites(&daemon, "b", 1.0);
    live.wait_for(&folded("b"));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert!(!live.heard(&said("pause")), "{}", live.log);
}
