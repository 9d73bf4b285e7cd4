//! An output folder and a state belong to one checkpoint, until `--new-checkpoint` gives them to
//! another.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::three_layers::{
    K, Q, daemon_with_shards, once_with, sine_values, write_checkpoint,
};

use super::BINARY;

#[expect(clippy::unwrap_used, reason = "a step that fails fails the test")]
fn model_of(daemon: &TestDaemon, out: &str) -> String {
    let adapter = daemon.adapter(out);
    let model = adapter.manifest["fingerprints"]["model"].as_str();
    model.unwrap().to_owned()
}

#[test]
fn another_checkpoint_is_refused_with_both_fingerprints() {
    let daemon = daemon_with_shards(BINARY);
    let checkpoint = daemon.path().join("checkpoint");
    expect(&daemon.run(&once_with(&["--emit-base"])), 0, &[]);
    let first = model_of(&daemon, "qera-out");
    // Another selection, rank or quantizer is no other checkpoint.
    let part = ["--include", Q, "--out", "part", "--state", "part-state"];
    expect(&daemon.run(&once_with(&part)), 0, &[]);
    assert_eq!(model_of(&daemon, "part"), first);

    write_checkpoint(&checkpoint, &sine_values(48, 0.5));
    expect(&daemon.run(&once_with(&["--out", "second"])), 0, &[]);
    let second = model_of(&daemon, "second");
    assert_ne!(first, second);
    let said = [&first, &second, "another checkpoint", "--new-checkpoint"];
    let state = [&said[..], &["qera-out/state"]].concat();
    expect(&daemon.run(&once_with(&[])), 4, &state);
    let plan = once_with(&["--out", "qera-out"]);
    let plan = [&["plan"], &plan[1..]].concat();
    expect(&daemon.run(&plan), 4, &state);
    // The output folder as well, whatever the state.
    let anew = once_with(&["--state", "anew"]);
    let out = [&said[..], &["qera-out: its current generation"]].concat();
    expect(&daemon.run(&anew), 4, &out);
    // A base of the old one stays refused: it is what an engine serves.
    let meant = once_with(&["--new-checkpoint"]);
    expect(&daemon.run(&meant), 4, &["base", "other weights"]);
    fs::remove_dir_all(daemon.path().join("qera-out/base")).unwrap();
    let said = [
        "evidence begins anew",
        "published generation 2",
        "4 shards folded",
    ];
    expect(&daemon.run(&meant), 0, &said);
    assert_eq!(daemon.adapter("qera-out").layer(K)["rows"], 1200);
    // From here on it belongs to the second, and the first is another.
    expect(&daemon.run(&once_with(&[])), 0, &["nothing new"]);
    write_checkpoint(&checkpoint, &sine_values(48, 0.0));
    expect(&daemon.run(&once_with(&[])), 4, &["another checkpoint"]);
}

/// A tensor that no layer reads makes another checkpoint too.
#[test]
fn solve_refuses_another_checkpoint() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    write_checkpoint(&daemon.path().join("checkpoint"), &sine_values(48, 0.5));
    let solve = |more: &[&str]| {
        let basic = "solve --checkpoint checkpoint --state qera-out/state --block-size 4";
        let basic: Vec<&str> = basic.split(' ').collect();
        daemon.run(&[&basic[..], more].concat())
    };
    let to = ["--out", "other"];
    expect(&solve(&to), 4, &["qera-out/state", "another checkpoint"]);
    let record = || fs::read(daemon.path().join("qera-out/state/sites.json")).unwrap();
    let before = record();
    let meant = ["--out", "other", "--new-checkpoint"];
    expect(&solve(&meant), 0, &["published generation 1"]);
    assert_eq!(record(), before, "it is only read");
}

/// Statistics that were gathered without a checkpoint take the first that comes.
#[test]
fn statistics_alone_belong_to_the_first_checkpoint() {
    let daemon = daemon_with_shards(BINARY);
    let gather = ["--once", "--watch", "activations", "--state", "gathered"];
    expect(&daemon.run(&gather), 0, &["4 shards"]);
    let with = |out: &str| daemon.run(&once_with(&["--state", "gathered", "--out", out]));
    expect(&with("first"), 0, &["published generation 1"]);
    write_checkpoint(&daemon.path().join("checkpoint"), &sine_values(48, 0.5));
    expect(&with("second"), 4, &["gathered", "another checkpoint"]);
    // Gathering on without one forgets nothing.
    expect(&daemon.run(&gather), 0, &["4 shards"]);
    expect(&with("second"), 4, &["gathered", "another checkpoint"]);
}
