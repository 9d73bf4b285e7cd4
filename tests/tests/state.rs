//! What a run leaves, and what the next one makes of it.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::live::statistics;
use qera_tests::shards::{TensorToWrite, write};
use qera_tests::small::{DOWN, K, Q, shard_path, small, wave, with, write_checkpoint};

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");

/// A shard of 300 rows for both sites.
fn shard(daemon: &TestDaemon, name: &str, phase: f32) {
    let tensors = [
        TensorToWrite::f32(Q, &[300, 8], &wave(300 * 8, phase)),
        TensorToWrite::f32(DOWN, &[300, 12], &wave(300 * 12, 10.0 + phase)),
    ];
    write(&shard_path(daemon, name), &tensors, &[]);
}

fn newest_snapshot(daemon: &TestDaemon) -> PathBuf {
    let folder = daemon.path().join("qera-out/state/snapshots");
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|e| e.unwrap().path()).max().unwrap()
}

#[test]
fn a_second_run_with_nothing_new_publishes_nothing() {
    let daemon = small(BINARY);
    expect(&daemon.run(&with(&[])), 0, &["published generation 1"]);
    let again = daemon.run(&with(&[]));
    expect(&again, 0, &["continuing from", "nothing new", "4 shards"]);
    assert!(!again.log.contains("published") && !again.log.contains("folded"));
    // The generation gone, it is made again from the state alone.
    fs::remove_file(daemon.path().join("qera-out/current")).unwrap();
    expect(&daemon.run(&with(&[])), 0, &["published generation 2"]);
}

/// In two runs as in one: the state continues where the first ended.
#[test]
fn a_later_run_continues() {
    let (whole, parts) = (small(BINARY), small(BINARY));
    for shard in [2, 3] {
        let path = shard_path(&parts, &format!("shard-{shard}"));
        fs::rename(&path, path.with_extension("later")).unwrap();
    }
    expect(&parts.run(&with(&[])), 0, &["2 shards folded"]);
    for shard in [2, 3] {
        let path = shard_path(&parts, &format!("shard-{shard}"));
        fs::rename(path.with_extension("later"), &path).unwrap();
    }
    // What was folded need not be there any more.
    fs::remove_file(shard_path(&parts, "shard-0")).unwrap();
    expect(
        &parts.run(&with(&[])),
        0,
        &["continuing from", "4 shards folded"],
    );
    expect(&whole.run(&with(&[])), 0, &[]);
    let state = |daemon: &TestDaemon| statistics(&daemon.path().join("qera-out/state"));
    assert_eq!(state(&whole), state(&parts));
    assert!(whole.adapter("qera-out").bytes == parts.adapter("qera-out").bytes);
}

#[test]
fn content_counts_not_the_name() {
    let daemon = small(BINARY);
    fs::copy(
        shard_path(&daemon, "shard-1"),
        shard_path(&daemon, "shard-1-again"),
    )
    .unwrap();
    expect(
        &daemon.run(&with(&[])),
        0,
        &["duplicate shard-1.safetensors", "4 shards folded"],
    );
    assert_eq!(daemon.adapter("qera-out").layer(Q)["rows"], 1200);
    // A known name with new content is a new shard; a touched file is not.
    shard(&daemon, "shard-0", 7.0);
    let touched = shard_path(&daemon, "shard-2");
    let bytes = fs::read(&touched).unwrap();
    fs::remove_file(&touched).unwrap();
    fs::write(&touched, bytes).unwrap();
    expect(
        &daemon.run(&with(&[])),
        0,
        &["duplicate shard-2", "5 shards folded"],
    );
    assert_eq!(daemon.adapter("qera-out").layer(Q)["rows"], 1500);
}

#[test]
fn shards_are_consumed_when_they_are_saved() {
    let left = |daemon: &TestDaemon| {
        let entries = fs::read_dir(daemon.path().join("activations")).unwrap();
        let mut names: Vec<_> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let daemon = small(BINARY);
    fs::write(shard_path(&daemon, "bad"), "garbage that is no shard").unwrap();
    expect(
        &daemon.run(&with(&["--consume", "delete"])),
        3,
        &["quarantined"],
    );
    assert_eq!(left(&daemon), ["bad.safetensors"], "what was refused stays");

    let daemon = small(BINARY);
    expect(&daemon.run(&with(&[])), 0, &[]);
    assert_eq!(left(&daemon).len(), 4, "kept");
    // What an earlier run has saved goes as well.
    shard(&daemon, "shard-4", 5.0);
    expect(&daemon.run(&with(&["--consume", "move"])), 0, &["5 shards"]);
    assert_eq!(left(&daemon), [".consumed"]);
    shard(&daemon, "shard-4", 6.0);
    expect(&daemon.run(&with(&["--consume", "move"])), 0, &["6 shards"]);
    let consumed = daemon.path().join("activations/.consumed");
    assert_eq!(
        fs::read_dir(consumed).unwrap().count(),
        6,
        "no name is lost"
    );
}

/// Another rank, method or shrinkage from the same statistics: what a run with those settings would have made.
#[test]
fn solve_makes_what_a_run_would_have_made() {
    let daemon = small(BINARY);
    expect(&daemon.run(&with(&[])), 0, &[]);
    let state = ["--state", "qera-out/state", "--checkpoint", "checkpoint"];
    for (name, options) in [
        ("rank", vec!["--rank", "3", "--block-size", "4"]),
        ("approx", vec!["--method", "approx", "--block-size", "4"]),
        ("lqer", vec!["--method", "lqer", "--block-size", "4"]),
        (
            "fixed",
            vec![
                "--shrinkage",
                "0.3",
                "--quantizer",
                "mxint2",
                "--block-size",
                "4",
            ],
        ),
        ("auto", vec!["--shrinkage", "auto", "--block-size", "2"]),
    ] {
        let solved = format!("solved-{name}");
        let arguments = [&["solve", "--out", &solved], &state[..], &options].concat();
        expect(&daemon.run(&arguments), 0, &["published generation 1"]);
        let direct = format!("direct-{name}");
        let watch = [
            "--once",
            "--watch",
            "activations",
            "--checkpoint",
            "checkpoint",
        ];
        let arguments = [&watch[..], &["--out", &direct], &options].concat();
        expect(&daemon.run(&arguments), 0, &[]);
        let (solved, direct) = (daemon.adapter(&solved), daemon.adapter(&direct));
        assert!(solved.bytes == direct.bytes, "{name}");
        assert_eq!(solved.config, direct.config, "{name}");
        assert_eq!(
            solved.manifest["inputs"]["journal_digest"],
            direct.manifest["inputs"]["journal_digest"]
        );
    }
}

#[test]
fn solve_refuses_what_was_not_gathered() {
    let daemon = small(BINARY);
    let solve = |extra: &[&str]| {
        let basic = ["solve", "--checkpoint", "checkpoint", "--out", "other"];
        daemon.run(&[&basic, extra].concat())
    };
    expect(
        &solve(&["--state", "nowhere"]),
        4,
        &["nowhere", "no statistics"],
    );
    expect(
        &daemon.run(&with(&["--method", "approx", "--out", "approx"])),
        0,
        &[],
    );
    expect(
        &solve(&["--state", "approx/state"]),
        4,
        &["without R", "--method exact"],
    );
    expect(
        &solve(&["--state", "approx/state", "--method", "lqer-mean"]),
        0,
        &["published"],
    );
    // R is not gathered from here on either.
    expect(
        &daemon.run(&with(&["--out", "approx"])),
        4,
        &["without R", "choose another --state"],
    );
    expect(
        &daemon.run(&with(&["--include", "*.q_proj", "--out", "part"])),
        0,
        &[],
    );
    expect(
        &solve(&["--state", "part/state"]),
        4,
        &["without", "down_proj"],
    );
    expect(
        &daemon.run(&with(&["--out", "part"])),
        4,
        &["without", "down_proj", "choose another --state"],
    );
    expect(
        &solve(&["--state", "part/state", "--exclude", "*.down_proj"]),
        0,
        &["2 layers corrected"],
    );
}

/// The methods without R gather none, and measure on the rows held.
#[test]
fn diagonal_methods_do_without_r() {
    let daemon = small(BINARY);
    expect(&daemon.run(&with(&["--method", "approx"])), 0, &[]);
    let files = statistics(&daemon.path().join("qera-out/state"));
    for (name, bytes) in files {
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(
            file.tensor("autocorrelation").unwrap().shape(),
            [0],
            "{name}"
        );
        assert!(file.tensor("window").unwrap().shape()[0] >= 1024);
    }
    // The window holds every row here, so that both ways measure the same.
    expect(
        &daemon.run(&with(&[
            "--method",
            "exact",
            "--out",
            "exact",
            "--shrinkage",
            "1",
        ])),
        0,
        &[],
    );
    let (rows, r) = (daemon.adapter("qera-out"), daemon.adapter("exact"));
    for module in [Q, K, DOWN] {
        let error = |of: &serde_json::Value, key: &str| of["error"][key].as_f64().unwrap();
        for key in ["without", "with"] {
            let (a, b) = (error(rows.layer(module), key), error(r.layer(module), key));
            assert!((a / b - 1.0).abs() < 1e-4, "{module} {key}: {a} {b}");
        }
    }
}

/// Without a checkpoint statistics are gathered; later they are solved as if it had been there.
#[test]
fn statistics_first_weights_later() {
    let daemon = small(BINARY);
    let gather = ["--once", "--watch", "activations", "--state", "gathered"];
    expect(&daemon.run(&gather), 0, &["statistics only", "4 shards"]);
    assert!(!daemon.path().join("qera-out").exists());
    let status = daemon.run(&["status", "--state", "gathered"]);
    assert!(status.output.contains("gathered"), "{}", status.output);
    // A module that comes later is a site of its own from there on.
    let late = TensorToWrite::f32("model.late", &[50, 4], &wave(200, 0.3));
    write(&shard_path(&daemon, "t"), &[late], &[]);
    expect(&daemon.run(&gather), 0, &["folded t", "5 shards"]);
    let solve = [
        "solve",
        "--state",
        "gathered",
        "--checkpoint",
        "checkpoint",
        "--rank",
        "2",
        "--block-size",
        "4",
    ];
    expect(&daemon.run(&solve), 0, &["3 layers corrected"]);
    // A run on the checkpoint would not go on with what it does not have.
    let other = daemon.run(&with(&["--state", "gathered", "--out", "other"]));
    expect(&other, 4, &["model.late, which is not selected"]);
    fs::remove_file(shard_path(&daemon, "t")).unwrap();
    expect(&daemon.run(&with(&["--out", "direct"])), 0, &[]);
    assert!(daemon.adapter("qera-out").bytes == daemon.adapter("direct").bytes);
    // And a run with the checkpoint continues what is its own.
    let again = ["--once", "--watch", "activations", "--state", "again"];
    expect(&daemon.run(&again), 0, &["4 shards"]);
    shard(&daemon, "u", 3.5);
    expect(
        &daemon.run(&with(&["--state", "again", "--out", "continued"])),
        0,
        &["continuing from", "5 shards folded"],
    );
    assert_eq!(daemon.adapter("continued").layer(Q)["rows"], 1500);
}

#[test]
fn damage_is_seen_and_the_snapshot_before_is_used() {
    let daemon = small(BINARY);
    let later = shard_path(&daemon, "shard-3");
    fs::rename(&later, later.with_extension("later")).unwrap();
    expect(&daemon.run(&with(&[])), 0, &[]);
    fs::rename(later.with_extension("later"), &later).unwrap();
    expect(&daemon.run(&with(&[])), 0, &["4 shards folded"]);
    let good = daemon.adapter("qera-out").bytes;

    let file = newest_snapshot(&daemon).join("00000.statistics.safetensors");
    let bytes = fs::read(&file).unwrap();
    let mut damaged = bytes.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 4;
    fs::write(&file, &damaged).unwrap();
    shard(&daemon, "shard-4", 8.0);
    expect(
        &daemon.run(&with(&[])),
        0,
        &["are damaged", "1 more are folded again", "5 shards folded"],
    );
    let continued = daemon.adapter("qera-out").bytes;
    assert!(continued != good);
    expect(&daemon.run(&with(&["--out", "fresh"])), 0, &[]);
    assert!(continued == daemon.adapter("fresh").bytes);

    // Every snapshot damaged: refused, and nothing is begun from zero.
    let snapshots = daemon.path().join("qera-out/state/snapshots");
    for entry in fs::read_dir(snapshots).unwrap() {
        fs::write(entry.unwrap().path().join("index.json"), "{}").unwrap();
    }
    expect(&daemon.run(&with(&[])), 4, &["no snapshot is whole"]);
    expect(&daemon.run(&with(&[])), 4, &["no snapshot is whole"]);
}

#[test]
fn a_damaged_journal_is_refused_by_line() {
    let daemon = small(BINARY);
    expect(&daemon.run(&with(&[])), 0, &[]);
    let path = daemon.path().join("qera-out/state/journal");
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 4);
    fs::write(&path, text.replacen("shard-1", "shard-9", 1)).unwrap();
    expect(
        &daemon.run(&with(&[])),
        4,
        &["journal", "line 2 is damaged"],
    );
    // Lines of other shards under a snapshot are no better.
    let lines: Vec<_> = text.lines().take(3).collect();
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    expect(
        &daemon.run(&with(&[])),
        4,
        &["no snapshot is whole", "other shards than the journal"],
    );
    fs::write(&path, &text).unwrap();
    expect(&daemon.run(&with(&[])), 0, &["nothing new"]);
}

/// A shard that was accepted, not saved, and is gone: said with its rows, and counted again when it comes back.
#[test]
fn what_is_lost_is_said() {
    let daemon = small(BINARY);
    expect(&daemon.run(&with(&[])), 0, &[]);
    // As a crash leaves it: the journal has shards that no snapshot holds.
    let snapshots = daemon.path().join("qera-out/state/snapshots");
    fs::remove_dir_all(&snapshots).unwrap();
    let gone = shard_path(&daemon, "shard-2");
    let bytes = fs::read(&gone).unwrap();
    fs::remove_file(&gone).unwrap();
    expect(
        &daemon.run(&with(&[])),
        0,
        &["lost shard-2.safetensors: 300 rows", "3 shards folded"],
    );
    fs::write(&gone, bytes).unwrap();
    expect(
        &daemon.run(&with(&[])),
        0,
        &["folded shard-2", "4 shards folded"],
    );
    assert_eq!(daemon.adapter("qera-out").layer(Q)["rows"], 1200);
    expect(&daemon.run(&with(&[])), 0, &["nothing new"]);
}

#[test]
fn a_state_of_another_model_is_refused() {
    let daemon = small(BINARY);
    expect(&daemon.run(&with(&[])), 0, &[]);
    let wide = [
        TensorToWrite::f32(&format!("{Q}.weight"), &[6, 12], &wave(72, 0.0)),
        TensorToWrite::f32(&format!("{K}.weight"), &[4, 12], &wave(48, 1.0)),
        TensorToWrite::f32(&format!("{DOWN}.weight"), &[8, 12], &wave(96, 2.0)),
    ];
    let checkpoint = daemon.path().join("checkpoint");
    write(&checkpoint.join("model.safetensors"), &wide, &[]);
    expect(
        &daemon.run(&with(&[])),
        4,
        &["k_proj", "in_features 8", "is 12", "choose another --state"],
    );
    // Other weights of the same shapes are another adapter of the same statistics.
    write_checkpoint(&checkpoint, &wave(48, 0.5));
    expect(
        &daemon.run(&with(&[])),
        0,
        &["evidence begins anew", "published generation 2"],
    );
}

#[test]
fn one_state_has_one_daemon() {
    let daemon = small(BINARY);
    let state = daemon.path().join("shared");
    fs::create_dir(&state).unwrap();
    let lock = fs::File::create(state.join(".lock")).unwrap();
    lock.lock().unwrap();
    let run = daemon.run(&with(&["--state", "shared", "--out", "mine"]));
    expect(&run, 75, &["shared/.lock", "in use"]);
    drop(lock);
    expect(
        &daemon.run(&with(&["--state", "shared", "--out", "mine"])),
        0,
        &[],
    );
    expect(
        &daemon.run(&["status", "--state", "nothing"]),
        4,
        &["status"],
    );
    assert!(!Path::new("nothing").exists());
}

/// Without a checkpoint, what a refused shard says of widths does not count, and what cannot be held is refused.
#[test]
fn refused_shards_make_no_sites() {
    let daemon = TestDaemon::new(BINARY);
    fs::create_dir(daemon.path().join("activations")).unwrap();
    let gather = [
        "--once",
        "--watch",
        "activations",
        "--state",
        "gathered",
        "--threads",
        "1",
        "--memory-budget",
        "64MiB",
    ];
    let bad = TensorToWrite::f32("l", &[4, 7], &[f32::NAN; 28]);
    let huge = TensorToWrite::f32("h", &[1, 12_000], &wave(12_000, 0.0));
    let good = TensorToWrite::f32("l", &[4, 8], &wave(32, 0.0));
    write(&shard_path(&daemon, "a"), &[bad], &[]);
    write(&shard_path(&daemon, "b"), &[good], &[]);
    let first = daemon.run(&gather);
    expect(&first, 3, &["quarantined: shard a", "1 shards"]);
    fs::remove_file(shard_path(&daemon, "a")).unwrap();
    expect(&daemon.run(&gather), 0, &["1 shards"]);
    write(&shard_path(&daemon, "c"), &[huge], &[]);
    expect(&daemon.run(&gather), 3, &["shard c", "left of the budget"]);
    fs::remove_file(shard_path(&daemon, "c")).unwrap();
    let empty = TensorToWrite::f32("none", &[0, 8], &[]);
    write(&shard_path(&daemon, "d"), &[empty], &[]);
    expect(&daemon.run(&gather), 0, &["1 shards"]);
}

/// A state of version 1, as that program sealed it, is refused by name and left as it is.
#[test]
fn a_state_of_version_1_is_refused_and_left() {
    let daemon = small(BINARY);
    expect(&daemon.run(&with(&[])), 0, &[]);
    let path = daemon.path().join("qera-out/state/sites.json");
    let now = fs::read_to_string(&path).unwrap();
    let record: serde_json::Value = serde_json::from_str(now.split('\t').next().unwrap()).unwrap();
    let sites = record["sites"].as_array().unwrap().iter();
    let sites = sites.map(|s| serde_json::json!([s["key"], s["name"], s["in_features"]]));
    let before = serde_json::json!({
        "version": 1,
        "mask_rule": record["mask_rule"],
        "keeps_r": record["keeps_r"],
        "selected": record["selected"],
        "shares": record["shares"],
        "sites": sites.collect::<Vec<_>>(),
    })
    .to_string();
    let checksum = &blake3::hash(before.as_bytes()).to_hex()[..16];
    let sealed = format!("{before}\t{checksum}");
    fs::write(&path, &sealed).unwrap();
    shard(&daemon, "shard-4", 8.0);
    let said = [
        "sites.json",
        "has version 1, this program reads version 2",
        "choose another --state",
    ];
    expect(&daemon.run(&with(&[])), 4, &said);
    assert_eq!(fs::read_to_string(&path).unwrap(), sealed);
    expect(
        &daemon.run(&with(&["--state", "another"])),
        0,
        &["5 shards folded"],
    );
}
