//! Which rows feed which layers: forms of the same rows, members of a site, what shards say of
//! shared inputs.

use qera_tests::daemon::expect;
use qera_tests::safetensors_file::{Metadata, TensorToWrite, write_safetensors};
use qera_tests::three_layers::{
    DOWN, K, Q, daemon_with_shards, once_with, remove_shards, shard_path, sine_values,
};

use super::BINARY;

/// One form of the same rows.
type RowsAsTensors = fn(&[f32]) -> Vec<TensorToWrite>;

/// The statistics of R do not know how rows came; the LQER statistic does, so it is not used here.
#[test]
fn shapes_and_types_of_the_same_rows_agree() {
    // Integers survive every type.
    let rows: Vec<f32> = (0..256 * 8).map(|i| ((i * 37) % 13) as f32 - 6.0).collect();
    let forms: [RowsAsTensors; 4] = [
        |part| vec![TensorToWrite::f32(Q, &[64, 8], part)],
        |part| vec![TensorToWrite::bf16(Q, &[2, 32, 8], part)],
        |part| {
            vec![
                TensorToWrite::f16(Q, &[1, 64, 8], part),
                TensorToWrite::f32(K, &[64, 8], part),
            ]
        },
        |part| padded_and_masked(part).into(),
    ];
    let adapters = forms.map(|form| {
        let daemon = daemon_with_shards(BINARY);
        for (shard, part) in rows.chunks_exact(512).enumerate() {
            let path = shard_path(&daemon, &format!("shard-{shard}"));
            write_safetensors(&path, &form(part), &[]);
        }
        expect(
            &daemon.run(&once_with(&["--shrinkage", "0.1"])),
            0,
            &["folded shard-3.safetensors: 64 rows"],
        );
        daemon.adapter("qera-out").bytes
    });
    assert!(adapters.windows(2).all(|pair| pair[0] == pair[1]));
}

/// Two sequences of 32 rows with 8 rows of padding each.
fn padded_and_masked(rows: &[f32]) -> [TensorToWrite; 2] {
    let padded: Vec<f32> = rows
        .chunks(256)
        .flat_map(|sequence| [sequence, &[9.0; 64]].concat())
        .collect();
    let mask: Vec<u8> = (0..80).map(|row| u8::from(row % 40 < 32)).collect();
    [
        TensorToWrite::bf16(Q, &[2, 40, 8], &padded),
        TensorToWrite::u8(&format!("{Q}::mask"), &[2, 40], &mask),
    ]
}

#[test]
fn shares_in_the_metadata_join_sites() {
    let daemon = daemon_with_shards(BINARY);
    let folder = daemon.path().join("checkpoint");
    let tensors = [
        TensorToWrite::f32("enc.left.weight", &[6, 8], &sine_values(48, 0.0)),
        TensorToWrite::f32("enc.right.weight", &[4, 8], &sine_values(32, 1.0)),
    ];
    write_safetensors(&folder.join("model.safetensors"), &tensors, &[]);
    for shard in 0..4 {
        let rows = TensorToWrite::f32("enc.left", &[300, 8], &sine_values(300 * 8, shard as f32));
        write_safetensors(
            &shard_path(&daemon, &format!("shard-{shard}")),
            &[rows],
            &[],
        );
    }
    // Nothing says that the other is a linear layer.
    expect(
        &daemon.run(&once_with(&[])),
        0,
        &["1 layers on 1 sites", "enc.right"],
    );
    for shard in 0..4 {
        let rows = TensorToWrite::f32("enc.left", &[300, 8], &sine_values(300 * 8, shard as f32));
        let shares = [Metadata::new(
            "qera.shares",
            r#"[["enc.left","enc.right"]]"#,
        )];
        write_safetensors(
            &shard_path(&daemon, &format!("shard-{shard}")),
            &[rows],
            &shares,
        );
    }
    expect(
        &daemon.run(&once_with(&["--out", "joined"])),
        0,
        &["2 layers on 1 sites", "0 starved"],
    );
}

#[test]
fn excluded_modules_are_ignored_and_counted() {
    let daemon = daemon_with_shards(BINARY);
    expect(
        &daemon.run(&once_with(&["--exclude", "*.down_proj"])),
        0,
        &[
            "2 layers on 1 sites",
            "1 keys of modules not selected ignored",
        ],
    );
    expect(
        &daemon.run(&once_with(&["--include", "*.down_proj", "--out", "down"])),
        0,
        &["1 layers on 1 sites"],
    );
}

#[test]
fn a_pattern_that_leaves_nothing_out_is_said() {
    let daemon = daemon_with_shards(BINARY);
    let options = [
        "--exclude",
        "*.dwon_proj",
        "--exclude",
        "*.up_proj",
        "--exclude",
        "*.k_proj",
    ];
    let run = daemon.run(&once_with(&options));
    expect(&run, 0, &["--exclude: '*.dwon_proj' matches no weight of"]);
    let said = run.log.matches("leaves nothing out").count();
    assert_eq!(
        said, 2,
        "*.up_proj is none of this model's either: {}",
        run.log
    );
}

/// The site is fed by q_proj's rows whether q_proj is selected or not.
#[test]
fn rows_of_an_unselected_member_feed_the_site() {
    let (whole, part) = (daemon_with_shards(BINARY), daemon_with_shards(BINARY));
    expect(&whole.run(&once_with(&["--shrinkage", "0.1"])), 0, &[]);
    expect(
        &part.run(&once_with(&["--include", "*.k_proj", "--shrinkage", "0.1"])),
        0,
        &["1 layers corrected, 0 starved"],
    );
    assert_eq!(
        whole.adapter("qera-out").factors(K).lora_b,
        part.adapter("qera-out").factors(K).lora_b
    );
    let excluded = part.run(&once_with(&["--exclude", "*.q_proj", "--out", "excluded"]));
    expect(&excluded, 0, &["2 layers corrected, 0 starved"]);
}

/// What a refused shard says of shared inputs is not believed.
#[test]
fn a_refused_shard_does_not_decide_the_sites() {
    let (daemon, clean) = (daemon_with_shards(BINARY), daemon_with_shards(BINARY));
    let metadata = [
        Metadata::new("qera.model", "another"),
        Metadata::new("qera.shares", r#"[["model.layers.0.self_attn.k_proj"]]"#),
    ];
    let rows = [TensorToWrite::f32(Q, &[1, 8], &sine_values(8, 0.0))];
    write_safetensors(&shard_path(&daemon, "a-first"), &rows, &metadata);
    expect(
        &daemon.run(&once_with(&[])),
        3,
        &["3 layers on 2 sites", "4 shards folded, 1 quarantined"],
    );
    let joined = [Metadata::new(
        "qera.shares",
        r#"[["model.layers.0.self_attn.q_proj","model.layers.0.mlp.down_proj"]]"#,
    )];
    write_safetensors(&shard_path(&daemon, "a-first"), &rows, &joined);
    expect(
        &daemon.run(&once_with(&["--out", "fresh"])),
        3,
        &[
            "in_features 8",
            "in_features 12",
            "4 shards folded, 1 quarantined",
        ],
    );
    expect(&clean.run(&once_with(&[])), 0, &[]);
    assert!(daemon.adapter("qera-out").bytes == clean.adapter("qera-out").bytes);
}

/// A clash with a shard that is refused for its own faults is no fault of the good one; a subset of
/// a known group is no clash at all.
#[test]
fn groups_of_good_shards_survive_bad_ones() {
    let daemon = daemon_with_shards(BINARY);
    let tensors: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|n| TensorToWrite::f32(&format!("blk.{n}.weight"), &[4, 8], &sine_values(32, 0.3)))
        .collect();
    write_safetensors(
        &daemon.path().join("checkpoint/model.safetensors"),
        &tensors,
        &[],
    );
    remove_shards(&daemon);
    let rows = |key: &str| TensorToWrite::f32(key, &[300, 8], &sine_values(2400, 0.1));
    let narrow = TensorToWrite::f32("blk.a", &[300, 7], &sine_values(2100, 0.1));
    write_safetensors(
        &shard_path(&daemon, "s0"),
        &[narrow],
        &[Metadata::new("qera.shares", r#"[["blk.a","blk.b"]]"#)],
    );
    write_safetensors(
        &shard_path(&daemon, "s1"),
        &[rows("blk.b"), rows("blk.a")],
        &[Metadata::new(
            "qera.shares",
            r#"[["blk.b","blk.c"],["blk.a"]]"#,
        )],
    );
    write_safetensors(
        &shard_path(&daemon, "s2"),
        &[rows("blk.c"), rows("blk.a")],
        &[Metadata::new("qera.shares", r#"[["blk.c"],["blk.a"]]"#)],
    );
    expect(
        &daemon.run(&once_with(&[])),
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
    let daemon = daemon_with_shards(BINARY);
    for shard in 0..4 {
        let tensors = [
            TensorToWrite::new(Q, "F64", &[300, 8], vec![0; 19200]),
            TensorToWrite::f32(K, &[300, 8], &sine_values(2400, shard as f32)),
            TensorToWrite::f32(DOWN, &[300, 12], &sine_values(3600, shard as f32)),
        ];
        write_safetensors(
            &shard_path(&daemon, &format!("shard-{shard}")),
            &tensors,
            &[Metadata::new("qera.tp_size", "2")],
        );
    }
    let run = daemon.run(&once_with(&["--include", "*.k_proj"]));
    expect(
        &run,
        0,
        &[
            "1 layers corrected, 0 starved",
            "2 keys of modules not selected ignored",
        ],
    );
    expect(
        &daemon.run(&once_with(&["--out", "fresh"])),
        1,
        &["has dtype F64"],
    );
}
