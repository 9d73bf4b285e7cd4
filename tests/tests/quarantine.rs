//! What bad, empty and degenerate activations get: set aside by name, or finite results and a warning.
#![expect(
    clippy::too_many_lines,
    reason = "a list of cases is read from top to bottom"
)]

use std::fs;
use std::path::Path;

use qera_tests::daemon::expect;
use qera_tests::shards::{TensorToWrite, write};
use qera_tests::small::{BASIC, DOWN, K, Q, shard_path, small, wave, with};

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");

#[test]
fn masked_rows_do_not_count() {
    let (plain, masked) = (small(BINARY), small(BINARY));
    for shard in 0..4 {
        // The same rows with rubbish between them, masked out.
        let rows = wave(300 * 8, shard as f32);
        let (mut mixed, mut mask) = (Vec::new(), Vec::new());
        for row in rows.chunks(8) {
            mixed.extend_from_slice(&[f32::NAN; 8]);
            mixed.extend_from_slice(row);
            mask.extend([0, 1]);
        }
        let deep = wave(300 * 12, 10.0 + shard as f32);
        let tensors = [
            TensorToWrite::f32(Q, &[600, 8], &mixed),
            TensorToWrite::u8(&format!("{Q}::mask"), &[600], &mask),
            TensorToWrite::f32(DOWN, &[300, 12], &deep),
        ];
        write(
            &shard_path(&masked, &format!("shard-{shard}")),
            &tensors,
            &[],
        );
    }
    expect(&plain.run(&with(&[])), 0, &[]);
    expect(&masked.run(&with(&[])), 0, &[]);
    assert!(plain.adapter("qera-out").bytes == masked.adapter("qera-out").bytes);
}

#[test]
fn bad_shards_are_quarantined_and_the_rest_counts() {
    let daemon = small(BINARY);
    let clean = small(BINARY);
    expect(&clean.run(&with(&[])), 0, &[]);
    let good = wave(300 * 8, 0.0);
    let q = |values: &[f32]| TensorToWrite::f32(Q, &[300, 8], values);
    let at = |name: &str| shard_path(&daemon, name);
    let mut nan = good.clone();
    nan[8 * 17 + 3] = f32::NAN;
    write(&at("x-nan"), &[q(&nan)], &[]);
    let mut infinite = good.clone();
    infinite[8 * 18 + 4] = f32::INFINITY;
    write(&at("x-infinite"), &[q(&infinite)], &[]);
    let mut huge = good.clone();
    huge[8 * 19 + 5] = 1e30;
    write(&at("x-huge"), &[q(&huge)], &[]);
    write(
        &at("x-width"),
        &[TensorToWrite::f32(Q, &[300, 7], &good[..2100])],
        &[],
    );
    write(
        &at("x-unknown"),
        &[TensorToWrite::f32(
            "model.layers.9.mlp.up_proj",
            &[1, 8],
            &good[..8],
        )],
        &[],
    );
    write(
        &at("x-dtype"),
        &[TensorToWrite::new(Q, "I32", &[300, 8], vec![0; 9600])],
        &[],
    );
    write(
        &at("x-differ"),
        &[q(&good), TensorToWrite::f32(K, &[300, 8], &wave(2400, 0.5))],
        &[],
    );
    write(
        &at("x-mask"),
        &[
            q(&good),
            TensorToWrite::u8(&format!("{Q}::mask"), &[299], &[1; 299]),
        ],
        &[],
    );
    write(
        &at("x-orphan"),
        &[TensorToWrite::u8(&format!("{Q}::mask"), &[1], &[1])],
        &[],
    );
    write(&at("x-model"), &[q(&good)], &[("qera.model", "another")]);
    write(
        &at("x-tp"),
        &[TensorToWrite::f32(DOWN, &[1, 12], &good[..12])],
        &[("qera.tp_size", "2")],
    );
    write(&at("x-shares"), &[q(&good)], &[("qera.shares", "q_proj")]);
    // Atomic: the good tensor of a shard with a bad one does not count either.
    write(
        &at("x-half"),
        &[
            q(&good),
            TensorToWrite::f32(DOWN, &[1, 12], &[f32::NAN; 12]),
        ],
        &[],
    );
    let whole = fs::read(at("shard-0")).unwrap();
    fs::write(at("x-truncated"), &whole[..whole.len() - 1]).unwrap();
    fs::write(at("x-trailing"), [&whole[..], &[0]].concat()).unwrap();
    fs::write(at("x-text"), "these are no activations").unwrap();
    fs::write(at("x-empty"), "").unwrap();
    // No rows, claimed a million million times: neither an error nor a reason to allocate.
    write(
        &at("y-none"),
        &[TensorToWrite::f32(Q, &[1 << 40, 0, 8], &[])],
        &[],
    );
    let lie = String::from_utf8_lossy(&whole).contains("[300,8]");
    assert!(lie);
    let lying: Vec<u8> = whole.windows(1).flatten().copied().collect();
    let position = whole.windows(7).position(|w| w == b"[300,8]").unwrap();
    let mut lying = lying;
    lying[position + 1..position + 4].copy_from_slice(b"301");
    fs::write(at("x-lying"), lying).unwrap();

    let run = daemon.run(&with(&[]));
    let infinity = "row 18, column 4";
    expect(
        &run,
        3,
        &[
            "x-nan.safetensors: tensor 'model.layers.0.self_attn.q_proj'",
            "row 17, column 3",
            infinity,
            "row 19, column 5",
            "x-width.safetensors",
            "[300, 7]",
            "in_features",
            "'model.layers.9.mlp.up_proj' names no linear layer",
            "has dtype I32",
            "x-differ.safetensors",
            "share one input but differ, first in row 0",
            "x-mask.safetensors",
            "[299]",
            "belongs to no tensor",
            "qera.model is 'another'",
            "qera.tp_size 2",
            "qera.shares",
            "x-half.safetensors: tensor 'model.layers.0.mlp.down_proj'",
            "x-truncated.safetensors: truncated",
            "trailing bytes",
            "x-text.safetensors: not a safetensors file",
            "x-empty.safetensors: truncated: 0 bytes",
            "x-lying.safetensors: tensor 'model.layers.0.self_attn.q_proj'",
            "[301, 8]",
            "4 shards folded, 18 quarantined",
        ],
    );
    let (ours, expected) = (daemon.adapter("qera-out"), clean.adapter("qera-out"));
    assert!(ours.bytes == expected.bytes, "a refused shard left a trace");
    assert_eq!(
        ours.manifest["inputs"]["quarantined"]
            .as_array()
            .unwrap()
            .len(),
        18
    );
}

#[test]
fn nothing_usable_publishes_nothing() {
    let daemon = small(BINARY);
    for shard in 0..4 {
        fs::write(
            shard_path(&daemon, &format!("shard-{shard}")),
            "garbage that is longer than a header",
        )
        .unwrap();
    }
    expect(
        &daemon.run(&with(&[])),
        1,
        &["none of its shards gave a row (4 refused)"],
    );
    assert!(!daemon.path().join("qera-out/current").exists());
}

#[test]
fn starved_layers_are_listed_with_zero_factors() {
    let daemon = small(BINARY);
    for shard in 0..4 {
        let rows = wave(300 * 8, shard as f32);
        write(
            &shard_path(&daemon, &format!("shard-{shard}")),
            &[TensorToWrite::f32(Q, &[300, 8], &rows)],
            &[],
        );
    }
    expect(&daemon.run(&with(&[])), 0, &["1 starved", "no row seen"]);
    let adapter = daemon.adapter("qera-out");
    assert_eq!(adapter.layer(DOWN)["status"], "starved");
    assert_eq!(adapter.layer(K)["status"], "solved", "k shares q's input");
    let (a, b, _) = adapter.factors(DOWN);
    assert!(a.iter().chain(&b).all(|x| x.abs() <= 0.0));
}

/// A generation of zeros must not take the place of a good one.
#[test]
fn an_empty_folder_publishes_nothing() {
    let daemon = small(BINARY);
    expect(&daemon.run(&with(&[])), 0, &["published generation 1"]);
    for shard in 0..4 {
        fs::remove_file(shard_path(&daemon, &format!("shard-{shard}"))).unwrap();
    }
    expect(&daemon.run(&with(&[])), 0, &["nothing new"]);
    expect(
        &daemon.run(&with(&["--out", "fresh"])),
        1,
        &[
            "activations: holds no shard (*.safetensors) with a row",
            "nothing was published",
        ],
    );
    assert!(!daemon.path().join("fresh/current").exists());
    assert_eq!(
        fs::read_link(daemon.path().join("qera-out/current")).unwrap(),
        Path::new("generations/000001")
    );
}

#[test]
fn degenerate_inputs_stay_finite() {
    let daemon = small(BINARY);
    for shard in 0..4 {
        // Two rows for eight channels, half of them dead; the other site is all zero.
        let mut rows = wave(16, shard as f32);
        rows.iter_mut()
            .enumerate()
            .filter(|(i, _)| i % 2 == 0)
            .for_each(|(_, x)| *x = 0.0);
        let tensors = [
            TensorToWrite::f32(Q, &[2, 8], &rows),
            TensorToWrite::f32(DOWN, &[2, 12], &[0.0; 24]),
        ];
        write(
            &shard_path(&daemon, &format!("shard-{shard}")),
            &tensors,
            &[],
        );
    }
    for method in [
        "exact",
        "approx",
        "lqer",
        "lqer-mean",
        "zeroquant-v2",
        "w-only",
    ] {
        for shrinkage in ["auto", "0"] {
            let arguments = [
                &BASIC[..],
                &[
                    "--method",
                    method,
                    "--shrinkage",
                    shrinkage,
                    "--rank-for",
                    "*q_proj=50",
                ],
            ]
            .concat();
            let run = daemon.run(&arguments);
            expect(&run, 0, &[]);
            if method == "exact" {
                expect(
                    &run,
                    0,
                    &[
                        "4 channels of 8 never differ from zero",
                        "all 12 channels are zero",
                    ],
                );
            }
            let adapter = daemon.adapter("qera-out");
            for module in [Q, K, DOWN] {
                let (a, b, _) = adapter.factors(module);
                assert!(
                    a.iter().chain(&b).all(|x| x.is_finite()),
                    "{method} {module}"
                );
            }
            assert_eq!(adapter.layer(DOWN)["status"], "nothing-to-correct");
            let error = &adapter.layer(Q)["error"];
            assert!(
                error["with"].as_f64().unwrap()
                    <= error["without"].as_f64().unwrap() * (1.0 + 1e-9),
                "{method}"
            );
        }
    }
}

/// Shards without a row for a selected layer, over a good generation: none of them may replace it.
#[test]
fn shards_without_rows_publish_nothing() {
    let masked = [
        TensorToWrite::f32(Q, &[2, 8], &wave(16, 0.0)),
        TensorToWrite::u8(&format!("{Q}::mask"), &[2], &[0, 0]),
    ];
    let cases: [(&str, Vec<TensorToWrite>); 4] = [
        (
            "excluded keys",
            vec![TensorToWrite::f32(
                "model.embed_tokens",
                &[1, 8],
                &wave(8, 0.0),
            )],
        ),
        ("no tensor", vec![]),
        ("no row", vec![TensorToWrite::f32(Q, &[0, 8], &[])]),
        ("masked rows", masked.to_vec()),
    ];
    for (name, tensors) in cases {
        let daemon = small(BINARY);
        expect(&daemon.run(&with(&[])), 0, &["published generation 1"]);
        for shard in 0..4 {
            fs::remove_file(shard_path(&daemon, &format!("shard-{shard}"))).unwrap();
        }
        write(&shard_path(&daemon, "only"), &tensors, &[]);
        expect(&daemon.run(&with(&[])), 0, &["nothing new"]);
        let fresh = daemon.run(&with(&["--out", "fresh"]));
        expect(&fresh, 1, &["nothing was published"]);
        let current = fs::read_link(daemon.path().join("qera-out/current")).unwrap();
        assert_eq!(current, Path::new("generations/000001"), "{name}");
    }
}

/// What a refused shard says of shared inputs is not believed.
#[test]
fn a_refused_shard_does_not_decide_the_sites() {
    let (daemon, clean) = (small(BINARY), small(BINARY));
    let metadata = [
        ("qera.model", "another"),
        ("qera.shares", r#"[["model.layers.0.self_attn.k_proj"]]"#),
    ];
    let rows = [TensorToWrite::f32(Q, &[1, 8], &wave(8, 0.0))];
    write(&shard_path(&daemon, "a-first"), &rows, &metadata);
    expect(
        &daemon.run(&with(&[])),
        3,
        &["3 layers on 2 sites", "4 shards folded, 1 quarantined"],
    );
    let joined = [(
        "qera.shares",
        r#"[["model.layers.0.self_attn.q_proj","model.layers.0.mlp.down_proj"]]"#,
    )];
    write(&shard_path(&daemon, "a-first"), &rows, &joined);
    expect(
        &daemon.run(&with(&["--out", "fresh"])),
        3,
        &[
            "in_features 8",
            "in_features 12",
            "4 shards folded, 1 quarantined",
        ],
    );
    expect(&clean.run(&with(&[])), 0, &[]);
    assert!(daemon.adapter("qera-out").bytes == clean.adapter("qera-out").bytes);
}

/// R of three rows has rank three, whatever f32 sums leave behind it.
#[test]
fn no_more_rank_than_rows() {
    let daemon = small(BINARY);
    for shard in 0..4 {
        fs::remove_file(shard_path(&daemon, &format!("shard-{shard}"))).unwrap();
    }
    let rows = [TensorToWrite::f32(Q, &[3, 8], &wave(24, 0.4))];
    write(&shard_path(&daemon, "only"), &rows, &[]);
    let run = daemon.run(&with(&["--shrinkage", "0", "--rank-for", "*q_proj=6"]));
    expect(
        &run,
        0,
        &[
            "3 rows for 8 channels",
            "q_proj: numerical rank 3 is below rank 6",
        ],
    );
    assert_eq!(daemon.adapter("qera-out").layer(Q)["rank_used"], 3);
}

/// A clash with a shard that is refused for its own faults is no fault of the good one; a subset of a known
/// group is no clash at all.
#[test]
fn groups_of_good_shards_survive_bad_ones() {
    let daemon = small(BINARY);
    let tensors: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|n| TensorToWrite::f32(&format!("blk.{n}.weight"), &[4, 8], &wave(32, 0.3)))
        .collect();
    write(
        &daemon.path().join("checkpoint/model.safetensors"),
        &tensors,
        &[],
    );
    for shard in 0..4 {
        fs::remove_file(shard_path(&daemon, &format!("shard-{shard}"))).unwrap();
    }
    let rows = |key: &str| TensorToWrite::f32(key, &[300, 8], &wave(2400, 0.1));
    let narrow = TensorToWrite::f32("blk.a", &[300, 7], &wave(2100, 0.1));
    write(
        &shard_path(&daemon, "s0"),
        &[narrow],
        &[("qera.shares", r#"[["blk.a","blk.b"]]"#)],
    );
    write(
        &shard_path(&daemon, "s1"),
        &[rows("blk.b"), rows("blk.a")],
        &[("qera.shares", r#"[["blk.b","blk.c"],["blk.a"]]"#)],
    );
    write(
        &shard_path(&daemon, "s2"),
        &[rows("blk.c"), rows("blk.a")],
        &[("qera.shares", r#"[["blk.c"],["blk.a"]]"#)],
    );
    expect(
        &daemon.run(&with(&[])),
        3,
        &[
            "3 layers on 2 sites",
            "2 shards folded, 1 quarantined",
            "0 starved",
        ],
    );
}

/// An unselected member whose tensor cannot serve is passed over, not held against the shard.
#[test]
fn a_bad_member_that_is_not_selected_does_no_harm() {
    let daemon = small(BINARY);
    for shard in 0..4 {
        let tensors = [
            TensorToWrite::new(Q, "F64", &[300, 8], vec![0; 19200]),
            TensorToWrite::f32(K, &[300, 8], &wave(2400, shard as f32)),
            TensorToWrite::f32(DOWN, &[300, 12], &wave(3600, shard as f32)),
        ];
        write(
            &shard_path(&daemon, &format!("shard-{shard}")),
            &tensors,
            &[("qera.tp_size", "2")],
        );
    }
    let run = daemon.run(&with(&["--include", "*.k_proj"]));
    expect(
        &run,
        0,
        &[
            "1 layers corrected, 0 starved",
            "2 keys of modules not selected ignored",
        ],
    );
    expect(
        &daemon.run(&with(&["--out", "fresh"])),
        1,
        &["has dtype F64"],
    );
}
