//! What no block of ggml holds is bf16 where that is exact, layer by layer.

use qera_core::quantize::{Grid, Mxint};
use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::gguf_file::GgufTensorToWrite;
use qera_tests::gguf_model::{GgufTestLayer, LAYERS, ROWS};
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{rename_in, sine_values};

use crate::model::{
    BF16, Q8_0, assert_holds, base, daemon_with_model, model_with, nearest, rich_model, run_once,
};

const UP: GgufTestLayer = GgufTestLayer {
    module: "model.layers.0.mlp.up_proj",
    tensor: "blk.0.ffn_up",
    out_features: 6,
    in_features: 48,
    heads: 0,
};

fn mxint(bits: u32, block_size: usize) -> Grid {
    Grid::Mxint(Mxint::new(bits, block_size).unwrap())
}

fn whole(daemon: &TestDaemon) -> Vec<serde_json::Value> {
    let manifest = daemon.manifest("qera-out");
    manifest["gguf_base"]["whole"].as_array().unwrap().clone()
}

/// The smallest and the largest scales of f16, and those beyond: 2^(e-6) at 8 bits.
#[test]
fn a_scale_beyond_f16_makes_its_layer_bf16() {
    let grid = mxint(8, 32);
    for (value, in_blocks) in [
        (f32::exp2(-18.0), true),
        (f32::exp2(-18.01), false),
        (f32::exp2(21.99), true),
        (f32::exp2(22.0), false),
        // A block of zeros has no scale; one that is too small for codes has numbers all the same.
        (0.0, true),
        (1e-31, false),
        (-1e-39, true),
    ] {
        let weight = |layer: &GgufTestLayer| {
            let mut weight = layer.weight();
            if layer.heads == 2 {
                weight[64..96].fill(value);
            }
            weight
        };
        let daemon = daemon_with_model(&model_with(weight));
        expect(&run_once(&daemon, &["--quantizer", "mxint8"]), 0, &[]);
        let base = base(&daemon);
        for layer in &LAYERS {
            let expected = if in_blocks || layer.heads != 2 {
                Q8_0
            } else {
                BF16
            };
            let tensor = base.tensor(&format!("{}.weight", layer.tensor));
            assert_eq!(tensor.type_number, expected, "{value:e} {}", layer.tensor);
            let quantized = nearest(&grid, &weight(layer), layer.in_features);
            assert_holds(&base, layer, &quantized);
        }
        let whole = whole(&daemon);
        assert_eq!(whole.len(), usize::from(!in_blocks), "{value:e}");
        if let Some(of) = whole.first() {
            assert_eq!(of["layer"], LAYERS[0].module);
            let reason = of["reason"].as_str().unwrap();
            let said = match value < 1e-30 {
                true => "are below what codes and f16 scales hold",
                false => "row 2, block 0: its scale",
            };
            assert!(reason.contains(said), "{reason}");
        }
        let verdict = daemon.run(&["verify", "--adapter", "qera-out/current"]);
        assert_eq!(verdict.code, 0, "{}", verdict.output);
    }
}

/// The type of most numbers decides what the file says it is.
#[test]
fn blocks_of_another_size_are_bf16() {
    let daemon = daemon_with_model(&rich_model());
    let options = ["--quantizer", "mxint4", "--block-size", "16"];
    expect(
        &run_once(&daemon, &options),
        0,
        &["3 layers in BF16, 16.00 bits a weight"],
    );
    let base = base(&daemon);
    for layer in &LAYERS {
        let quantized = nearest(&mxint(4, 16), &layer.weight(), layer.in_features);
        assert_holds(&base, layer, &quantized);
    }
    assert_eq!(base.number("general.file_type"), 32);
    let reason = whole(&daemon)[0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("have 16 numbers, ggml's 32"), "{reason}");
    let readme = daemon.path().join("qera-out/base-gguf/qera_base.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    assert!(
        readme.contains("`model.layers.0.mlp.down_proj`: its blocks have 16"),
        "{readme}"
    );
}

#[test]
fn rows_that_end_within_a_block_are_bf16() {
    let ne = [UP.in_features, UP.out_features];
    let up = GgufTensorToWrite::f32("blk.0.ffn_up.weight", &ne, &UP.weight());
    let daemon = daemon_with_model(&rich_model().tensor(up));
    let rows = sine_values(ROWS * UP.in_features, 5.0);
    let rows = TensorToWrite::f32(UP.module, &[ROWS, UP.in_features], &rows);
    rename_in(&daemon, "up", &[rows]);
    let run = run_once(&daemon, &["--quantizer", "mxint3"]);
    expect(&run, 0, &["1 layers in BF16, 3 layers in Q4_0"]);
    let base = base(&daemon);
    for layer in LAYERS.iter().chain([&UP]) {
        let quantized = nearest(&mxint(3, 32), &layer.weight(), layer.in_features);
        assert_holds(&base, layer, &quantized);
    }
    assert_eq!(base.number("general.file_type"), 2);
    // No float type holds the levels exactly.
    let _ = std::fs::remove_dir_all(daemon.path().join("qera-out"));
    let run = run_once(&daemon, &["--quantizer", "q4-0"]);
    let said = [
        "--emit-base=gguf: layer 'model.layers.0.mlp.up_proj'",
        "q4-0/32: its rows of 48 numbers",
        "--exclude",
    ];
    expect(&run, 2, &said);
    assert!(!run.log.contains("folded"), "{}", run.log);
    let options = ["--quantizer", "q4-0", "--exclude", "*.up_proj"];
    expect(&run_once(&daemon, &options), 0, &["3 layers in Q4_0"]);
}
