//! Files that are not of this model, and options that would make another W~.

use crate::BINARY;
use qera_tests::daemon::{EndedRun, TestDaemon, expect};
use qera_tests::gguf_file::{GgufTensorToWrite, GgufToWrite};
use qera_tests::gguf_model::{
    GgufTestLayer, HEADS, KEY_HEADS, LAYERS, ONCE, daemon_with_gguf, empty_model, full_model,
    quantized_model,
};

fn run_with(daemon: &TestDaemon, model: &GgufToWrite) -> EndedRun {
    model.write(&daemon.path().join("model.gguf"));
    daemon.run(&ONCE)
}

#[test]
fn what_would_make_another_is_a_usage_error() {
    let daemon = daemon_with_gguf(BINARY);
    for option in [
        &["--quantizer", "mxint4"][..],
        &["--block-size", "32"],
        &["--scale-dtype", "f16"],
        &["--zero-points"],
        &["--rounding", "nearest"],
        &["--rounding", "projected"],
        &["--rounding-shrinkage", "0.5"],
        &["--base-share", "0.1"],
        &["--round-after", "9"],
        &["--lower-rank"],
        &["--emit-base"],
    ] {
        let run = daemon.run(&[&ONCE[..], option].concat());
        expect(&run, 2, &[option[0], "--quantized"]);
    }
    let run = daemon.run(&[
        "--once",
        "--watch",
        "activations",
        "--quantized",
        "model.gguf",
    ]);
    expect(&run, 2, &["--quantized", "--checkpoint"]);
    assert!(!daemon.path().join("qera-out").exists());
}

#[test]
fn rows_in_the_checkpoint_s_order_are_told_by_name() {
    let daemon = daemon_with_gguf(BINARY);
    let model = LAYERS.iter().fold(empty_model(), |model, layer| {
        model.tensor(layer.coarse(&layer.weight()))
    });
    let said = [
        "model.gguf",
        "blk.0.attn_k.weight",
        "k_proj",
        "another converter",
    ];
    expect(&run_with(&daemon, &model), 1, &said);
}

#[test]
fn another_model_of_these_widths_is_told_by_its_numbers() {
    let daemon = daemon_with_gguf(BINARY);
    let model = LAYERS.iter().fold(empty_model(), |model, layer| {
        let other = qera_tests::three_layers::sine_values(layer.weight().len(), 77.7);
        let scrambled: Vec<f32> = (0..other.len())
            .map(|i| other[i * 7919 % other.len()])
            .collect();
        model.tensor(layer.coarse(&scrambled))
    });
    let run = run_with(&daemon, &model);
    expect(&run, 1, &["blk.0.", "relative error 1.", "another model"]);
    let skipping = daemon.run(&[&ONCE[..], &["--skip-broken"]].concat());
    assert_ne!(
        skipping.code, 0,
        "nothing is left to correct: {}",
        skipping.log
    );
}

/// Heads in another number: half of the rows are where they belong.
#[test]
fn rows_that_are_right_in_part_are_told_by_the_first_wrong_one() {
    let daemon = daemon_with_gguf(BINARY);
    let [q, k, down] = LAYERS;
    let mut stored = q.in_gguf_order(&q.weight());
    stored.rotate_right(4 * q.in_features);
    stored[..8 * q.in_features].copy_from_slice(&q.in_gguf_order(&q.weight())[..8 * q.in_features]);
    let right = |of: &GgufTestLayer| of.coarse(&of.in_gguf_order(&of.weight()));
    let model = empty_model().tensor(q.coarse(&stored));
    let model = model.tensor(right(&k)).tensor(right(&down));
    expect(
        &run_with(&daemon, &model),
        1,
        &["blk.0.attn_q.weight", "row ", "another order"],
    );
    // The others are corrected where it is wanted.
    let run = daemon.run(&[&ONCE[..], &["--skip-broken"]].concat());
    expect(&run, 0, &["q_proj", "has other numbers for it"]);
    let adapter = daemon.adapter("qera-out");
    assert!(adapter.has(down.module) && !adapter.has(q.module));
}

/// What a file of few bits may be off is no excuse for one of many.
#[test]
fn a_file_of_another_version_of_the_model_is_told_by_its_types() {
    let daemon = daemon_with_gguf(BINARY);
    let fine_tuned = LAYERS.iter().fold(empty_model(), |model, layer| {
        let weight = layer.in_gguf_order(&layer.weight());
        let other = (0..weight.len()).map(|i| weight[i] + 0.1 * (i as f32 * 1.3).sin());
        let name = format!("{}.weight", layer.tensor);
        let ne = [layer.in_features, layer.out_features];
        model.tensor(GgufTensorToWrite::f32(
            &name,
            &ne,
            &other.collect::<Vec<_>>(),
        ))
    });
    let said = [
        "model.gguf",
        "3 of its 3 layers",
        "F32 leaves",
        "another version",
    ];
    expect(&run_with(&daemon, &fine_tuned), 1, &said);
    // One wrong layer of three is reported and corrected.
    let mut one = quantized_model();
    one.tensors[0] = fine_tuned.tensors[0].clone();
    expect(
        &run_with(&daemon, &one),
        0,
        &["1 tensors differ more", "blk.0.attn_q.weight"],
    );
}

/// Its class stores weights transposed, and shards and adapters speak of them so.
#[test]
fn a_gguf_of_conv1d_is_no_checkpoint() {
    let daemon = daemon_with_gguf(BINARY);
    GgufToWrite::model("gpt2", HEADS, KEY_HEADS).write(&daemon.path().join("full.gguf"));
    let run = daemon.run(&[&ONCE[..3], &["--checkpoint", "full.gguf"]].concat());
    expect(&run, 1, &["'gpt2'", "transposed", "Hugging Face folder"]);
}

#[test]
fn another_width_is_told_with_both() {
    let daemon = daemon_with_gguf(BINARY);
    let wide = GgufTensorToWrite::coarse("blk.0.attn_q.weight", &[64, 16], &[0.5; 1024]);
    let run = run_with(&daemon, &empty_model().tensor(wide));
    expect(
        &run,
        1,
        &[
            "blk.0.attn_q.weight",
            "[64, 16]",
            "[32, 16]",
            "another model",
        ],
    );
}

#[test]
fn another_architecture_is_told() {
    let daemon = daemon_with_gguf(BINARY);
    let named = |name| GgufToWrite::model(name, HEADS, KEY_HEADS);
    expect(
        &run_with(&daemon, &named("qwen2")),
        1,
        &["'qwen2'", "model_type 'llama'"],
    );
    expect(
        &run_with(&daemon, &named("new")),
        1,
        &["'new'", "does not know", "llama"],
    );
    let said = ["general.type", "'adapter'"];
    expect(
        &run_with(&daemon, &empty_model().text("general.type", "adapter")),
        1,
        &said,
    );
    let without_heads = GgufToWrite::default().text("general.architecture", "llama");
    let model = LAYERS.iter().fold(without_heads, |model, layer| {
        model.tensor(layer.coarse(&layer.weight()))
    });
    expect(
        &run_with(&daemon, &model),
        1,
        &["llama.attention.head_count"],
    );
}

#[test]
fn the_two_files_the_other_way_round_are_told() {
    let daemon = daemon_with_gguf(BINARY);
    let checkpoint: Vec<&str> = ONCE
        .iter()
        .map(|word| {
            if *word == "checkpoint" {
                "model.gguf"
            } else {
                word
            }
        })
        .collect();
    expect(
        &daemon.run(&checkpoint),
        1,
        &["model.gguf", "Q4_0", "--quantized"],
    );
    // And a base that cannot be written of a GGUF; one that was rounded is a GGUF itself.
    let base = [&ONCE[..3], &["--checkpoint", "full.gguf", "--emit-base"]].concat();
    expect(&daemon.run(&base), 2, &["--emit-base", "full.gguf"]);
    let projected = [&base[..5], &["--rounding", "projected"]].concat();
    expect(&daemon.run(&projected), 0, &["base as GGUF written"]);
    assert!(
        daemon
            .path()
            .join("qera-out/base-gguf/model.gguf")
            .is_file()
    );
    // A folder of GGUF files is not read.
    std::fs::create_dir(daemon.path().join("folder")).unwrap();
    full_model().write(&daemon.path().join("folder/model.gguf"));
    let folder = [&ONCE[..3], &["--checkpoint", "folder"]].concat();
    expect(
        &daemon.run(&folder),
        1,
        &["model.gguf", "give the file itself"],
    );
}

#[test]
fn a_block_that_is_no_number_is_named() {
    let daemon = daemon_with_gguf(BINARY);
    let mut model = quantized_model();
    model.tensors[2].bytes[18 * 5..18 * 5 + 2].copy_from_slice(&[0x00, 0x7c]);
    let run = run_with(&daemon, &model);
    expect(
        &run,
        1,
        &[
            "blk.0.ffn_down.weight",
            "block 5 decodes to",
            "--skip-broken",
        ],
    );
    let run = daemon.run(&[&ONCE[..], &["--skip-broken"]].concat());
    expect(&run, 0, &["down_proj", "left out by --skip-broken"]);
    let adapter = daemon.adapter("qera-out");
    assert!(adapter.has(LAYERS[0].module) && !adapter.has(LAYERS[2].module));
}
