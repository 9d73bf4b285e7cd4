//! The fixture's language model, run in f32: committed tokens in, what each linear layer sees out.
//!
//! A stream of real activations as long as a test wants it, without Python. `tests/fixture.rs` holds it to the
//! committed shards, which Hugging Face Transformers recorded.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests only")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use half::bf16;
use safetensors::{Dtype, SafeTensors};

use crate::reference::from_bf16;
use crate::shards::{TensorToWrite, write};

/// A LlamaForCausalLM in f32, its lm_head left out.
#[derive(Debug)]
pub struct FixtureModel {
    hidden: usize,
    heads: usize,
    key_value_heads: usize,
    epsilon: f32,
    theta: f64,
    embedding: Vec<f32>,
    blocks: Vec<Block>,
}

/// One decoder layer.
#[derive(Debug)]
struct Block {
    path: String,
    input_norm: Vec<f32>,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    post_attention_norm: Vec<f32>,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// A weight [out_features, in_features], row-major.
#[derive(Debug)]
struct Linear {
    weight: Vec<f32>,
    in_features: usize,
}

/// Cosines and sines of the rotary embedding, [seq, head / 2].
struct Rotation {
    cosines: Vec<f32>,
    sines: Vec<f32>,
    half: usize,
}

/// The calibration sequences, 128 tokens each, in the order in which the committed shards recorded the first of them.
///
/// # Panics
/// When the file is not what it should be.
#[must_use]
pub fn calibration_tokens() -> Vec<Vec<usize>> {
    read_tokens("calibration.safetensors")
}

/// The evaluation sequences, 128 tokens each, from documents that were neither trained nor calibrated on.
///
/// # Panics
/// When the file is not what it should be.
#[must_use]
pub fn evaluation_tokens() -> Vec<Vec<usize>> {
    read_tokens("evaluation.safetensors")
}

/// Writes one shard as the committed ones are: `[batch, seq, in_features]` in bf16 for each recorded module, with
/// `qera.model` and `qera.source`; under another name in the same folder, then renamed.
///
/// # Panics
/// When the sequences differ in length or the file cannot be written.
pub fn write_shard(path: &Path, model: &FixtureModel, sequences: &[Vec<usize>]) {
    let length = sequences[0].len();
    let mut batch: Vec<(String, usize, Vec<f32>)> = Vec::new();
    for tokens in sequences {
        assert_eq!(tokens.len(), length, "sequences of one shard");
        let inputs = model.inputs(tokens);
        if batch.is_empty() {
            batch = inputs;
            continue;
        }
        for (whole, part) in batch.iter_mut().zip(inputs) {
            whole.2.extend(part.2);
        }
    }
    let tensors: Vec<_> = batch
        .iter()
        .map(|(name, width, rows)| {
            TensorToWrite::bf16(name, &[sequences.len(), length, *width], rows)
        })
        .collect();
    let metadata = [
        ("qera.model", "qera-fixture-llama"),
        ("qera.source", "full-precision"),
    ];
    let aside = path.with_extension("part");
    write(&aside, &tensors, &metadata);
    std::fs::rename(aside, path).unwrap();
}

impl FixtureModel {
    /// Reads `fixtures/model`.
    ///
    /// # Panics
    /// When the files are not what they should be.
    #[must_use]
    pub fn load() -> Self {
        let folder = fixtures().join("model");
        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        let count = |key: &str| usize::try_from(config[key].as_u64().unwrap()).unwrap();
        let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut weights: HashMap<String, (Vec<f32>, usize)> = file
            .tensors()
            .into_iter()
            .map(|(name, tensor)| {
                assert_eq!(tensor.dtype(), Dtype::BF16, "{name}");
                let width = *tensor.shape().last().unwrap();
                (name, (from_bf16(tensor.data()), width))
            })
            .collect();
        let mut take = |name: &str| weights.remove(&format!("{name}.weight")).unwrap();
        let embedding = take("model.embed_tokens").0;
        let blocks = (0..count("num_hidden_layers"))
            .map(|i| Block::take(format!("model.layers.{i}"), &mut take))
            .collect();
        Self {
            hidden: count("hidden_size"),
            heads: count("num_attention_heads"),
            key_value_heads: count("num_key_value_heads"),
            epsilon: serde_json::from_value(config["rms_norm_eps"].clone()).unwrap(),
            theta: config["rope_theta"].as_f64().unwrap(),
            embedding,
            blocks,
        }
    }

    /// What each recorded module sees of one sequence: its path, in_features, and the rows [seq, in_features],
    /// row-major, rounded to bf16.
    ///
    /// # Panics
    /// When a token is not in the vocabulary.
    #[must_use]
    pub fn inputs(&self, tokens: &[usize]) -> Vec<(String, usize, Vec<f32>)> {
        let mut seen = Vec::new();
        let mut record = |block: &Block, module: &str, linear: &Linear, rows: &[f32]| {
            let rounded = rows.iter().map(|v| bf16::from_f32(*v).to_f32()).collect();
            seen.push((
                format!("{}.{module}", block.path),
                linear.in_features,
                rounded,
            ));
        };
        let rotation = Rotation::new(tokens.len(), self.hidden / self.heads, self.theta);
        let mut stream: Vec<f32> = tokens
            .iter()
            .flat_map(|token| &self.embedding[token * self.hidden..(token + 1) * self.hidden])
            .copied()
            .collect();
        for block in &self.blocks {
            let x = normalized(&stream, &block.input_norm, self.epsilon);
            record(block, "self_attn.q_proj", &block.q, &x);
            let x = self.attention(block, &x, &rotation);
            record(block, "self_attn.o_proj", &block.o, &x);
            add(&mut stream, &block.o.apply(&x));

            let x = normalized(&stream, &block.post_attention_norm, self.epsilon);
            record(block, "mlp.gate_proj", &block.gate, &x);
            let mut gated = block.gate.apply(&x);
            for (gate, up) in gated.iter_mut().zip(block.up.apply(&x)) {
                *gate *= up / (1.0 + (-*gate).exp());
            }
            record(block, "mlp.down_proj", &block.down, &gated);
            add(&mut stream, &block.down.apply(&gated));
        }
        seen
    }

    /// Causal attention; several query heads read one head of keys and values.
    fn attention(&self, block: &Block, x: &[f32], rotation: &Rotation) -> Vec<f32> {
        let (width, seq) = (2 * rotation.half, x.len() / self.hidden);
        let (mut q, mut k) = (block.q.apply(x), block.k.apply(x));
        let v = block.v.apply(x);
        rotation.apply(&mut q, self.heads);
        rotation.apply(&mut k, self.key_value_heads);
        let q = MatRef::from_row_major_slice(&q, seq, self.heads * width);
        let k = MatRef::from_row_major_slice(&k, seq, self.key_value_heads * width);
        let v = MatRef::from_row_major_slice(&v, seq, self.key_value_heads * width);
        let scale = 1.0 / (width as f32).sqrt();
        let mut scores = vec![0.0; seq * seq];
        let mut out = vec![0.0; seq * self.heads * width];
        for head in 0..self.heads {
            let shared = head * self.key_value_heads / self.heads * width;
            matmul(
                MatMut::from_row_major_slice_mut(&mut scores, seq, seq),
                Accum::Replace,
                q.subcols(head * width, width),
                k.subcols(shared, width).transpose(),
                scale,
                Par::Seq,
            );
            for (i, row) in scores.chunks_exact_mut(seq).enumerate() {
                let (past, future) = row.split_at_mut(i + 1);
                softmax(past);
                future.fill(0.0);
            }
            matmul(
                MatMut::from_row_major_slice_mut(&mut out, seq, self.heads * width)
                    .subcols_mut(head * width, width),
                Accum::Replace,
                MatRef::from_row_major_slice(&scores, seq, seq),
                v.subcols(shared, width),
                1.0,
                Par::Seq,
            );
        }
        out
    }
}

impl Block {
    fn take(path: String, take: &mut impl FnMut(&str) -> (Vec<f32>, usize)) -> Self {
        let mut part = |name: &str| take(&format!("{path}.{name}"));
        let mut linear = |name: &str| {
            let (weight, in_features) = part(name);
            Linear {
                weight,
                in_features,
            }
        };
        Self {
            q: linear("self_attn.q_proj"),
            k: linear("self_attn.k_proj"),
            v: linear("self_attn.v_proj"),
            o: linear("self_attn.o_proj"),
            gate: linear("mlp.gate_proj"),
            up: linear("mlp.up_proj"),
            down: linear("mlp.down_proj"),
            input_norm: part("input_layernorm").0,
            post_attention_norm: part("post_attention_layernorm").0,
            path,
        }
    }
}

impl Linear {
    /// x W^T for rows x.
    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let (m, rows) = (self.in_features, x.len() / self.in_features);
        let n = self.weight.len() / m;
        let mut out = vec![0.0; rows * n];
        matmul(
            MatMut::from_row_major_slice_mut(&mut out, rows, n),
            Accum::Replace,
            MatRef::from_row_major_slice(x, rows, m),
            MatRef::from_row_major_slice(&self.weight, n, m).transpose(),
            1.0,
            Par::Seq,
        );
        out
    }
}

impl Rotation {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounded to f32, as the model was trained"
    )]
    fn new(seq: usize, width: usize, theta: f64) -> Self {
        let half = width / 2;
        let angles = (0..seq).flat_map(|position| {
            (0..half).map(move |i| position as f64 * theta.powf(-2.0 * i as f64 / width as f64))
        });
        let (sines, cosines) = angles
            .map(f64::sin_cos)
            .map(|(sine, cosine)| (sine as f32, cosine as f32))
            .unzip();
        Self {
            cosines,
            sines,
            half,
        }
    }

    /// Rotates each row's heads by its position: element i of a head goes with element i + half of it.
    fn apply(&self, rows: &mut [f32], heads: usize) {
        let positions = self
            .cosines
            .chunks_exact(self.half)
            .zip(self.sines.chunks_exact(self.half));
        for (row, (cosines, sines)) in rows.chunks_exact_mut(2 * self.half * heads).zip(positions) {
            for head in row.chunks_exact_mut(2 * self.half) {
                let (left, right) = head.split_at_mut(self.half);
                for (i, (a, b)) in left.iter_mut().zip(right).enumerate() {
                    let (x, y) = (*a, *b);
                    *a = x * cosines[i] - y * sines[i];
                    *b = y * cosines[i] + x * sines[i];
                }
            }
        }
    }
}

/// RMSNorm of each row.
fn normalized(rows: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let width = weight.len();
    let mut out = Vec::with_capacity(rows.len());
    for row in rows.chunks_exact(width) {
        let power = row.iter().map(|v| v * v).sum::<f32>() / width as f32;
        let scale = 1.0 / (power + epsilon).sqrt();
        out.extend(row.iter().zip(weight).map(|(v, w)| w * (v * scale)));
    }
    out
}

fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - largest).exp();
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
}

fn add(stream: &mut [f32], update: &[f32]) {
    for (value, change) in stream.iter_mut().zip(update) {
        *value += change;
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// `tokens` of a file, U16 or I32.
fn read_tokens(name: &str) -> Vec<Vec<usize>> {
    let bytes = std::fs::read(fixtures().join(name)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("tokens").unwrap();
    let token: fn(&[u8]) -> usize = match tensor.dtype() {
        Dtype::U16 => |b| u16::from_le_bytes(b.try_into().unwrap()).into(),
        Dtype::I32 => |b| usize::try_from(i32::from_le_bytes(b.try_into().unwrap())).unwrap(),
        other => panic!("{name}: tokens as {other:?}"),
    };
    let (count, length) = (tensor.shape()[0], tensor.shape()[1]);
    let tokens: Vec<_> = tensor
        .data()
        .chunks_exact(tensor.data().len() / (count * length))
        .map(token)
        .collect();
    tokens.chunks_exact(length).map(<[_]>::to_vec).collect()
}
