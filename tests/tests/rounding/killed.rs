//! Killed when W~ is there and nothing is published: the next run takes it, and makes no other.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::event::{event, folded, published};
use qera_tests::live::Live;
use qera_tests::three_layers::{
    DOWN, K, Q, daemon_with_shards, daemon_without_shards, write_rows_of_both_sites,
};

use super::{
    BINARY, assert_same_bytes, kept_in_state, marker, once_rounded, record, start_rounded,
};

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
    let rounded = daemon.path().join("qera-out/state/rounded");
    let mut before = kept_in_state(&daemon);
    before.retain(|layer, _| marker(&rounded, layer).is_some());
    assert!(!before.is_empty());
    // What it was just writing.
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

/// A kill between the files of layers that were rounded together leaves none of them.
#[test]
fn layers_of_a_site_are_kept_together_or_not_at_all() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_rounded(&[])), 0, &[]);
    let before = kept_in_state(&daemon);
    let rounded = daemon.path().join("qera-out/state/rounded");
    let (of_both, mut names) = marker(&rounded, K).unwrap();
    names.sort();
    assert_eq!(names, [K, Q]);
    fs::remove_file(of_both).unwrap();
    fs::remove_file(rounded.join(format!("{Q}.safetensors"))).unwrap();

    write_rows_of_both_sites(&daemon, "later", 7.5);
    let options = once_rounded(&["--state", "qera-out/state", "--out", "other"]);
    expect(&daemon.run(&options), 0, &["rounded by projected"]);
    let after = kept_in_state(&daemon);
    assert!(after[DOWN] == before[DOWN]);
    for layer in [Q, K] {
        assert_eq!(record(&after[layer])["journal_position"], 5, "{layer}");
    }

    // What was whole and is gone is nobody's leftover.
    fs::remove_file(rounded.join(format!("{K}.safetensors"))).unwrap();
    let said = [
        K,
        "is missing; put back the file that was there",
        "state/rounded",
    ];
    expect(&daemon.run(&options), 4, &said);
    assert!(rounded.join(format!("{Q}.safetensors")).exists());
}
