//! W~ that do not serve: of other settings or weights, damaged, of another layer.

use std::fs;
use std::path::PathBuf;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::three_layers::{
    DOWN, K, Q, daemon_with_shards, once_with, sine_values, write_checkpoint,
};

use super::{BINARY, kept_in_state, once_rounded};

fn rounded() -> TestDaemon {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_rounded(&[])), 0, &[]);
    daemon
}

#[test]
fn other_settings_are_refused_with_both_values() {
    let daemon = rounded();
    let before = kept_in_state(&daemon);
    // Another output folder, so that it is the state that refuses.
    let with = |options: &[&str]| {
        let other = ["--state", "qera-out/state", "--out", "other"];
        daemon.run(&once_with(&[&other, options].concat()))
    };
    let advice = "choose another --state, or have `solve --round-again` make others";
    let projected = ["--rounding", "projected"];
    let cases: [(&[&str], &[&str]); 5] = [
        (
            &["--rounding", "feedback"],
            &["--rounding projected", "uses feedback", advice],
        ),
        (
            &["--rounding", "projected", "--base-share", "0"],
            &["--base-share 0.01", "uses 0,", advice],
        ),
        (
            &["--rounding", "projected", "--rounding-shrinkage", "0.5"],
            &["--rounding-shrinkage rule", "uses 0.5", advice],
        ),
        (
            &["--rounding", "projected", "--quantizer", "mxint3"],
            &[
                "--quantizer mxint4, block_size 4",
                "uses mxint3, block",
                advice,
            ],
        ),
        (
            &["--rounding", "nearest"],
            &["--rounding nearest", "choose another --state"],
        ),
    ];
    for (options, said) in cases {
        let refused = with(options);
        expect(&refused, 4, said);
        assert!(refused.log.contains("state/rounded"), "{}", refused.log);
    }
    let rank = |k: &'static str| [&projected[..], &["--rank-for", k]].concat();
    let (lower, higher) = ([DOWN, "=1"].concat(), [DOWN, "=3"].concat());
    let (lower, higher): (&'static str, &'static str) = (lower.leak(), higher.leak());
    expect(
        &with(&rank(lower)),
        4,
        &[DOWN, "rank 2", "uses 1", "--lower-rank"],
    );
    expect(
        &with(&[&rank(lower)[..], &["--lower-rank"]].concat()),
        0,
        &[],
    );
    let above = [&rank(higher)[..], &["--out", "above"]].concat();
    expect(
        &daemon.run(&once_with(
            &[&above[..], &["--state", "qera-out/state"]].concat(),
        )),
        0,
        &[],
    );
    assert_eq!(kept_in_state(&daemon), before);
}

/// Which weights they were made from is known, and with `--new-checkpoint` others are made.
#[test]
fn w_of_other_weights_is_made_anew_by_name_only() {
    let daemon = rounded();
    let before = kept_in_state(&daemon);
    write_checkpoint(&daemon.path().join("checkpoint"), &sine_values(48, 0.25));
    expect(&daemon.run(&once_rounded(&[])), 4, &["--new-checkpoint"]);
    let other = [
        "--new-checkpoint",
        "--out",
        "other",
        "--state",
        "qera-out/state",
    ];
    let run = daemon.run(&once_rounded(&other));
    expect(&run, 0, &[]);
    let after = kept_in_state(&daemon);
    assert!(after[Q].bytes != before[Q].bytes);
    for same in [K, DOWN] {
        assert!(after[same] == before[same], "{same} has the same W");
    }
    // The state is of the new one now; a file of before is not taken for it.
    fs::write(file_of(&daemon, Q), &before[Q].bytes).unwrap();
    let other = ["--out", "other", "--state", "qera-out/state"];
    let refused = daemon.run(&once_rounded(&other));
    expect(
        &refused,
        4,
        &[Q, "another weight (blake3:", "--new-checkpoint"],
    );
}

fn file_of(daemon: &TestDaemon, layer: &str) -> PathBuf {
    let folder = daemon.path().join("qera-out/state/rounded");
    folder.join(format!("{layer}.safetensors"))
}

/// None of these is silently made again.
#[test]
fn a_damaged_file_is_refused_by_name() {
    let daemon = rounded();
    let path = file_of(&daemon, K);
    let whole = fs::read(&path).unwrap();
    let text = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = whole.windows(from.len()).position(|w| w == from.as_bytes());
        let mut changed = whole.clone();
        changed[at.unwrap()..][..to.len()].copy_from_slice(to.as_bytes());
        changed
    };
    let mut codes = whole.clone();
    *codes.last_mut().unwrap() ^= 1;
    let another = fs::read(file_of(&daemon, Q)).unwrap();
    let cases: [(&str, Vec<u8>); 7] = [
        ("no safetensors file", whole[..whole.len() - 1].to_vec()),
        ("no safetensors file", Vec::new()),
        ("codes are damaged", codes),
        ("record is damaged", text(r#"\"rank\":2"#, r#"\"rank\":1"#)),
        (
            "has no 'qera.rounded'",
            text(r#""qera.rounded":"#, r#""qera.rownded":"#),
        ),
        ("has no tensor 'codes'", text(r#""codes":"#, r#""modes":"#)),
        ("is of layer 'model.layers.0.self_attn.q_proj'", another),
    ];
    for (said, bytes) in cases {
        fs::write(&path, &bytes).unwrap();
        let refused = daemon.run(&once_rounded(&[]));
        expect(
            &refused,
            4,
            &[said, K, "qera-out/state/rounded", "choose another --state"],
        );
        assert_eq!(
            fs::read(&path).unwrap(),
            bytes,
            "it is left for whoever looks"
        );
    }
    fs::write(&path, &whole).unwrap();
    expect(&daemon.run(&once_rounded(&[])), 0, &[]);
}
