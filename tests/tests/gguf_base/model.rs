//! A GGUF in full precision with metadata of every type and tensors that are no layers, and runs
//! that write W~ in its form.

use std::path::PathBuf;

use half::f16;
use qera_core::quantize::Grid;
use qera_tests::daemon::{EndedRun, TestDaemon};
use qera_tests::gguf_file::{GgufTensorToWrite, GgufToWrite};
use qera_tests::gguf_model::{GgufTestLayer, LAYERS, daemon_with_gguf, empty_model};
use qera_tests::gguf_read::ReadGguf;
use qera_tests::three_layers::sine_values;

use crate::BINARY;

/// ggml's numbers of types.
pub(crate) const BF16: u32 = 30;
pub(crate) const Q8_0: u32 = 8;
/// Name of the model.
pub(crate) const MODEL: &str = "rich.gguf";

/// Strings and numbers as tokenizers have them.
fn metadata(model: GgufToWrite) -> GgufToWrite {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let tokens = ["<s>", "", "\u{2581}the"].map(text).concat();
    let tokens = [&8_u32.to_le_bytes()[..], &3_u64.to_le_bytes(), &tokens].concat();
    let scores = [0.5_f32, -1.0, 7e-12].map(f32::to_le_bytes).concat();
    let scores = [&6_u32.to_le_bytes()[..], &3_u64.to_le_bytes(), &scores].concat();
    model
        .text("general.name", "naïve")
        .number("general.file_type", 1)
        .value("llama.rope.freq_base", 6, &1e4_f32.to_le_bytes())
        .value("tokenizer.ggml.tokens", 9, &tokens)
        .value("tokenizer.ggml.scores", 9, &scores)
        .value("tokenizer.ggml.add_bos_token", 7, &[1])
        .value("general.some.i64", 11, &(-5_i64).to_le_bytes())
}

/// What is no layer: a quantized embedding, a norm, a number that no program reads.
fn others() -> [GgufTensorToWrite; 3] {
    let halves = [1.5, f32::INFINITY, -0.0].map(|v: f32| f16::from_f32(v).to_le_bytes());
    [
        GgufTensorToWrite::coarse("token_embd.weight", &[32, 10], &sine_values(320, 9.0)),
        GgufTensorToWrite::f32("output_norm.weight", &[33], &sine_values(33, 8.0)),
        GgufTensorToWrite {
            name: "blk.0.odd".into(),
            ne: vec![3],
            type_number: 1,
            bytes: halves.concat(),
        },
    ]
}

/// The model with weights of this layer in the place of its own.
pub(crate) fn model_with(weight: impl Fn(&GgufTestLayer) -> Vec<f32>) -> GgufToWrite {
    let [embedding, norm, odd] = others();
    let model = metadata(empty_model()).tensor(embedding);
    let model = LAYERS.iter().fold(model, |model, layer| {
        let name = format!("{}.weight", layer.tensor);
        let values = layer.in_gguf_order(&weight(layer));
        let ne = [layer.in_features, layer.out_features];
        model.tensor(GgufTensorToWrite::f32(&name, &ne, &values))
    });
    model.tensor(norm).tensor(odd)
}

/// The model.
pub(crate) fn rich_model() -> GgufToWrite {
    model_with(GgufTestLayer::weight)
}

/// A daemon's folder with the model and two shards.
pub(crate) fn daemon_with_model(model: &GgufToWrite) -> TestDaemon {
    let daemon = daemon_with_gguf(BINARY);
    model.write(&daemon.path().join(MODEL));
    daemon
}

/// Options of a run on it.
pub(crate) const ON_MODEL: [&str; 6] = [
    "--watch",
    "activations",
    "--checkpoint",
    MODEL,
    "--rank",
    "4",
];
pub(crate) const EMITS: &str = "--emit-base=gguf";

/// A run to the end that writes the base.
pub(crate) fn run_once(daemon: &TestDaemon, more: &[&str]) -> EndedRun {
    daemon.run(&[&["--once"], &ON_MODEL[..], &[EMITS], more].concat())
}

/// Where the base is.
pub(crate) fn base_file(daemon: &TestDaemon) -> PathBuf {
    daemon.path().join("qera-out/base-gguf/model.gguf")
}

/// The base.
pub(crate) fn base(daemon: &TestDaemon) -> ReadGguf {
    ReadGguf::open(&base_file(daemon))
}

/// W~ of a weight by the core.
pub(crate) fn nearest(grid: &Grid, weight: &[f32], in_features: usize) -> Vec<f32> {
    let mut quantized = vec![0.0; weight.len()];
    grid.quantize_dequantize(weight, in_features, &mut quantized)
        .unwrap();
    quantized
}

/// Holds a layer of a base against W~, given in Hugging Face's order; 0 is -0.
pub(crate) fn assert_holds(base: &ReadGguf, layer: &GgufTestLayer, quantized: &[f32]) {
    let found = base.tensor(&format!("{}.weight", layer.tensor)).values();
    let bits =
        |values: &[f32]| -> Vec<u32> { values.iter().map(|v| (v + 0.0).to_bits()).collect() };
    let expected = layer.in_gguf_order(quantized);
    assert_eq!(bits(&found), bits(&expected), "{}", layer.tensor);
}
