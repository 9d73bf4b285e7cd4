//! Killed when W~ is there and nothing is published: the next run takes it, and makes no other.

use std::fs;

use qera_tests::daemon::TestDaemon;
use qera_tests::event::{event, folded, published};
use qera_tests::live::Live;
use qera_tests::three_layers::{daemon_without_shards, write_rows_of_both_sites};

use super::{BINARY, assert_same_bytes, kept_in_state, record, start_rounded};

const SHARDS: [&str; 5] = ["a", "b", "c", "d", "e"];
const OPTIONS: [&str; 2] = ["--round-after", "850"];

/// Shards one by one, the next one after each is folded.
fn arrive(daemon: &TestDaemon, live: &mut Live, shards: core::ops::Range<usize>) {
    for index in shards {
        write_rows_of_both_sites(daemon, SHARDS[index], index as f32);
        live.wait_for(&folded(SHARDS[index]));
    }
}

#[test]
fn a_killed_run_never_makes_another() {
    let undisturbed = daemon_without_shards(BINARY);
    let mut live = start_rounded(&undisturbed, &OPTIONS);
    arrive(&undisturbed, &mut live, 0..5);
    live.wait_for(&published(5));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let expected = kept_in_state(&undisturbed);
    assert_eq!(expected.len(), 3);

    let daemon = daemon_without_shards(BINARY);
    let mut live = start_rounded(&daemon, &[&OPTIONS[..], &["--threads", "1"]].concat());
    arrive(&daemon, &mut live, 0..2);
    write_rows_of_both_sites(&daemon, SHARDS[2], 2.0);
    live.wait_for(&event("rounded"));
    live.kill();
    let before = kept_in_state(&daemon);
    assert!(!before.is_empty());
    // What it was just writing.
    let rounded = daemon.path().join("qera-out/state/rounded");
    let unfinished = rounded.join(".qera-unfinished-x.safetensors");
    fs::write(&unfinished, b"half").unwrap();

    let mut live = start_rounded(&daemon, &OPTIONS);
    arrive(&daemon, &mut live, 3..5);
    live.wait_for(&published(5));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert!(!unfinished.exists());
    let after = kept_in_state(&daemon);
    for (layer, file) in &before {
        assert!(after[layer] == *file, "{layer} was made again");
        assert!(!live.heard(&event("rounded").with("layer", layer.as_str())));
    }
    assert_same_bytes(&after, &expected);
    assert!(
        after
            .values()
            .all(|file| record(file)["journal_position"] == 3)
    );
    let (ours, theirs) = (daemon.adapter("qera-out"), undisturbed.adapter("qera-out"));
    assert!(ours.bytes == theirs.bytes);
    // Rows that W~ has seen are no evidence, though they were folded again.
    for (ours, theirs) in ours.layers().iter().zip(theirs.layers()) {
        assert_eq!(ours["evidence"], theirs["evidence"]);
    }
}
