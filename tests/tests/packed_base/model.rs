//! A block of a Llama whose widths engines have kernels for, and its rows.

use std::fs;
use std::path::Path;

use qera_tests::daemon::{EndedRun, TestDaemon};
use qera_tests::safetensors_file::{Metadata, TensorToWrite, write_safetensors};
use qera_tests::three_layers::sine_values;

use serde_json::{Value, json};

use crate::BINARY;

/// The path of the block.
pub(crate) const BLOCK: &str = "model.layers.0";
/// A layer of the block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockLayer {
    /// Path in the block.
    pub(crate) name: &'static str,
    /// Width of its output.
    pub(crate) out_features: usize,
    /// Width of its input.
    pub(crate) in_features: usize,
    /// Whether its input is recorded under its name.
    recorded: bool,
}

impl BlockLayer {
    const fn new(
        name: &'static str,
        out_features: usize,
        in_features: usize,
        recorded: bool,
    ) -> Self {
        Self {
            name,
            out_features,
            in_features,
            recorded,
        }
    }

    /// Path in the model.
    pub(crate) fn module(&self) -> String {
        format!("{BLOCK}.{}", self.name)
    }
}

/// All layers; down_proj's input is no multiple of 64.
pub(crate) const LAYERS: [BlockLayer; 7] = [
    BlockLayer::new("self_attn.q_proj", 64, 64, true),
    BlockLayer::new("self_attn.k_proj", 32, 64, false),
    BlockLayer::new("self_attn.v_proj", 32, 64, false),
    BlockLayer::new("self_attn.o_proj", 64, 64, true),
    BlockLayer::new("mlp.gate_proj", 96, 64, true),
    BlockLayer::new("mlp.up_proj", 96, 64, false),
    BlockLayer::new("mlp.down_proj", 64, 96, true),
];

/// Names of some of them in the model.
pub(crate) fn modules(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{BLOCK}.{name}")).collect()
}

/// A daemon's folder with the model, of bf16, and a shard.
pub(crate) fn daemon_with_block() -> TestDaemon {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    write_model(
        &daemon.path().join("checkpoint"),
        r#"{"model_type": "llama"}"#,
    );
    write_rows(&daemon, "a", 0.0);
    daemon
}

/// The model with such a config.json.
pub(crate) fn write_model(folder: &Path, config: &str) {
    fs::create_dir_all(folder).unwrap();
    let bf16 = |name: String, shape: &[usize], phase: f32| {
        let values = sine_values(shape.iter().product(), phase);
        TensorToWrite::bf16(&name, shape, &values)
    };
    let layers = LAYERS.iter().enumerate().map(|(index, layer)| {
        let shape = [layer.out_features, layer.in_features];
        bf16(format!("{}.weight", layer.module()), &shape, index as f32)
    });
    let mut tensors: Vec<TensorToWrite> = layers.collect();
    tensors.push(bf16("model.embed_tokens.weight".into(), &[40, 64], 8.0));
    tensors.push(bf16("lm_head.weight".into(), &[40, 64], 9.0));
    tensors.push(bf16("model.norm.weight".into(), &[64], 10.0));
    tensors.push(bf16(format!("{BLOCK}.mlp.gate_proj.bias"), &[95], 11.0));
    write_safetensors(&folder.join("model.safetensors"), &tensors, &[]);
    fs::write(folder.join("config.json"), config).unwrap();
    fs::write(folder.join("tokenizer.json"), "{}").unwrap();
}

/// A shard of 200 rows of each input.
pub(crate) fn write_rows(daemon: &TestDaemon, name: &str, phase: f32) {
    let recorded = LAYERS.iter().filter(|layer| layer.recorded);
    let tensors: Vec<TensorToWrite> = recorded
        .map(|layer| {
            let width = layer.in_features;
            let rows = sine_values(200 * width, phase + width as f32);
            TensorToWrite::f32(&layer.module(), &[200, width], &rows)
        })
        .collect();
    let path = daemon.watched().join(format!("{name}.safetensors"));
    // Of a model of a kind that is not listed the shards say what is linear, and whose names the
    // adapter has.
    let linears = LAYERS.iter().map(
        |layer| json!({"name": layer.module(), "in": layer.in_features, "out": layer.out_features}),
    );
    let linears = Value::Array(linears.collect()).to_string();
    let said = [
        Metadata::new("qera.class", "LlamaForCausalLM"),
        Metadata::new("qera.linears", &linears),
    ];
    write_safetensors(&path, &tensors, &said);
}

/// `--once` on it, with both bases, and more.
pub(crate) fn run_both(daemon: &TestDaemon, more: &[&str]) -> EndedRun {
    let both = ["--emit-base=hf,compressed-tensors"];
    run_once(daemon, &[&both[..], more].concat())
}

/// `--once` on it, and more.
pub(crate) fn run_once(daemon: &TestDaemon, more: &[&str]) -> EndedRun {
    let options = "--once --watch activations --checkpoint checkpoint --rank 2";
    let options: Vec<&str> = options.split(' ').chain(more.iter().copied()).collect();
    daemon.run(&options)
}
