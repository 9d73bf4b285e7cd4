//! What cannot be believed is not shown.

use qera_tests::daemon::TestDaemon;
use qera_tests::daemon::expect;
use qera_tests::three_layers::{daemon_with_shards, once_with};

use crate::{BINARY, page, table};

#[test]
fn there_has_to_be_a_generation() {
    let daemon = TestDaemon::new(BINARY);
    expect(&table(&daemon, &[]), 4, &["qera-out: holds no generation"]);
    expect(
        &table(&daemon, &["--out", "none"]),
        4,
        &["none: holds no generation"],
    );
    let to_nowhere = ["report", "--html", "none/page.html"];
    expect(&daemon.run(&to_nowhere), 4, &["holds no generation"]);
}

#[test]
fn a_damaged_manifest_is_no_report() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&["--shrinkage", "0"])), 0, &[]);
    expect(&daemon.run(&once_with(&["--shrinkage", "0.5"])), 0, &[]);
    let out = daemon.path().join("qera-out");
    // The generation of other settings is named, and not compared.
    let page = page(&daemon, &[]);
    assert!(
        page.contains("Generation 1 is not shown: of other settings."),
        "{page}"
    );
    let damage = |generation: &str| {
        let path = out.join(generation).join("qera_manifest.json");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[40] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    damage("generations/000001");
    let said = table(&daemon, &[]);
    expect(&said, 0, &[]);
    let named = "generation 1 is left out: its manifest is damaged";
    assert!(said.output.contains(named), "{}", said.output);
    damage("current");
    let refused = table(&daemon, &[]);
    expect(
        &refused,
        4,
        &["qera-out/current/qera_manifest.json: is damaged"],
    );
    assert!(refused.output.is_empty(), "{}", refused.output);
}

#[test]
fn a_state_that_is_named_is_the_right_one() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    let other = once_with(&["--out", "other", "--state", "other-state"]);
    expect(&daemon.run(&other), 0, &[]);
    expect(
        &table(&daemon, &["--state", "none"]),
        4,
        &["none: holds no status"],
    );
    let wrong = table(&daemon, &["--state", "other-state"]);
    expect(
        &wrong,
        4,
        &["other-state: is not the state that the current generation"],
    );
    let right = ["--out", "other", "--state", "other-state"];
    let right = table(&daemon, &right);
    expect(&right, 0, &[]);
    assert!(
        right.output.contains("state: No daemon works with it."),
        "{}",
        right.output
    );
    // Nobody named it, and there is none: the manifest is enough.
    let without = table(&daemon, &["--out", "other"]);
    expect(&without, 0, &[]);
    assert!(!without.output.contains("state: "), "{}", without.output);
}

#[test]
fn a_page_is_written_whole_or_not_at_all() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    let run = daemon.run(&["report", "--html", "none/page.html"]);
    expect(&run, 1, &["none/"]);
    page(&daemon, &[]);
    let left = std::fs::read_dir(daemon.path()).unwrap();
    let names: Vec<_> = left.map(|of| of.unwrap().file_name()).collect();
    let unfinished = |name: &&std::ffi::OsString| name.to_string_lossy().contains("unfinished");
    assert!(names.iter().find(unfinished).is_none(), "{names:?}");
}
