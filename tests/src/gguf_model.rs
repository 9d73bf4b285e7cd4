//! A Llama of one block with two heads, as a Hugging Face checkpoint and as GGUF files, and its
//! shards: for tests of W~ that the user gives.
#![allow(clippy::unwrap_used, reason = "tests only")]

use std::fs;
use std::path::Path;

use crate::daemon::TestDaemon;
use crate::gguf_file::{GgufTensorToWrite, GgufToWrite};
use crate::safetensors_file::{TensorToWrite, write_safetensors};
use crate::three_layers::{rename_in, sine_values};

/// Rows of a shard.
pub const ROWS: usize = 400;
/// Heads of q.
pub const HEADS: u32 = 2;
/// Heads of k.
pub const KEY_HEADS: u32 = 1;

/// A linear layer, in both worlds.
#[derive(Debug, Clone, Copy)]
pub struct GgufTestLayer {
    /// Hugging Face's module.
    pub module: &'static str,
    /// The GGUF's tensor, without `.weight`.
    pub tensor: &'static str,
    /// Width of its output.
    pub out_features: usize,
    /// Width of its input.
    pub in_features: usize,
    /// Heads by which its rows are interleaved in a GGUF; 0 where they are not.
    pub heads: u32,
}

/// The layers: q and k on one site, down on another.
pub const LAYERS: [GgufTestLayer; 3] = [
    GgufTestLayer {
        module: "model.layers.0.self_attn.q_proj",
        tensor: "blk.0.attn_q",
        out_features: 16,
        in_features: 32,
        heads: HEADS,
    },
    GgufTestLayer {
        module: "model.layers.0.self_attn.k_proj",
        tensor: "blk.0.attn_k",
        out_features: 8,
        in_features: 32,
        heads: KEY_HEADS,
    },
    GgufTestLayer {
        module: "model.layers.0.mlp.down_proj",
        tensor: "blk.0.ffn_down",
        out_features: 32,
        in_features: 64,
        heads: 0,
    },
];

/// Options of a run with `--once`, whose adapter is read as PEFT's files.
pub const ONCE: [&str; 11] = [
    "--once",
    "--watch",
    "activations",
    "--checkpoint",
    "checkpoint",
    "--quantized",
    "model.gguf",
    "--rank",
    "4",
    "--format",
    "peft",
];

impl GgufTestLayer {
    /// W, [out_features, in_features], in Hugging Face's order.
    #[must_use]
    pub fn weight(&self) -> Vec<f32> {
        let phase = (self.out_features + self.in_features) as f32;
        sine_values(self.out_features * self.in_features, phase)
    }

    /// Its rows in the order of a GGUF: of each head, the second half between the first.
    #[must_use]
    pub fn in_gguf_order(&self, weight: &[f32]) -> Vec<f32> {
        if self.heads == 0 {
            return weight.to_vec();
        }
        let head = self.out_features / self.heads as usize;
        let rows = (0..self.out_features).map(|row| {
            let (first, within) = (row / head * head, row % head);
            first + within % 2 * (head / 2) + within / 2
        });
        let m = self.in_features;
        rows.flat_map(|row| weight[row * m..(row + 1) * m].to_vec())
            .collect()
    }

    /// Its tensor, of these rows in the GGUF's order.
    #[must_use]
    pub fn coarse(&self, stored: &[f32]) -> GgufTensorToWrite {
        let ne = [self.in_features, self.out_features];
        GgufTensorToWrite::coarse(&format!("{}.weight", self.tensor), &ne, stored)
    }

    /// Rows of its input in a shard, from a mixture of few directions.
    #[must_use]
    pub fn rows(&self, phase: f32) -> Vec<f32> {
        let m = self.in_features;
        let rows = (0..ROWS).flat_map(|row| {
            let at = row as f32;
            (0..m).map(move |i| {
                let i = i as f32;
                (at * 0.37 + phase).sin() * (i * 0.9).cos()
                    + (at * 1.13 + phase).cos() * (i * 0.31).sin()
                    + 0.3 * (at * 7.7 + i * 3.1 + at * i).sin()
            })
        });
        rows.collect()
    }
}

/// A GGUF's metadata without a tensor.
#[must_use]
pub fn empty_model() -> GgufToWrite {
    GgufToWrite::model("llama", HEADS, KEY_HEADS)
}

/// The quantized model.
#[must_use]
pub fn quantized_model() -> GgufToWrite {
    LAYERS.iter().fold(empty_model(), |model, layer| {
        model.tensor(layer.coarse(&layer.in_gguf_order(&layer.weight())))
    })
}

/// The model in full precision.
#[must_use]
pub fn full_model() -> GgufToWrite {
    LAYERS.iter().fold(empty_model(), |model, layer| {
        let name = format!("{}.weight", layer.tensor);
        let values = layer.in_gguf_order(&layer.weight());
        let ne = [layer.in_features, layer.out_features];
        model.tensor(GgufTensorToWrite::f32(&name, &ne, &values))
    })
}

/// A daemon's folder with `checkpoint` (Hugging Face), `model.gguf` (quantized), `full.gguf` and
/// two shards.
///
/// # Panics
/// When the folder cannot be written.
#[must_use]
pub fn daemon_with_gguf(binary: &str) -> TestDaemon {
    let daemon = TestDaemon::with_watched_folder(binary);
    write_checkpoint(&daemon.path().join("checkpoint"));
    quantized_model().write(&daemon.path().join("model.gguf"));
    full_model().write(&daemon.path().join("full.gguf"));
    for shard in 0..2 {
        write_shard(&daemon, shard);
    }
    daemon
}

/// The Hugging Face folder.
///
/// # Panics
/// When it cannot be written.
pub fn write_checkpoint(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let tensors = LAYERS.iter().map(|layer| {
        let shape = [layer.out_features, layer.in_features];
        TensorToWrite::f32(&format!("{}.weight", layer.module), &shape, &layer.weight())
    });
    let tensors: Vec<_> = tensors.collect();
    write_safetensors(&folder.join("model.safetensors"), &tensors, &[]);
    fs::write(folder.join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
}

/// A shard with rows of both sites.
///
/// # Panics
/// When it cannot be written.
pub fn write_shard(daemon: &TestDaemon, number: usize) {
    let tensors = [LAYERS[0], LAYERS[2]].map(|layer| {
        let rows = layer.rows(number as f32);
        TensorToWrite::f32(layer.module, &[ROWS, layer.in_features], &rows)
    });
    rename_in(daemon, &format!("shard-{number}"), &tensors);
}
