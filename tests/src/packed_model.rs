//! The Llama of `gguf_model`, packed as other programs pack weights (compressed-tensors, GPTQ,
//! AWQ), by an independent writer: for tests of a folder that the user gives as W~.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tests only: codes are small"
)]

use std::fs;
use std::path::Path;

use half::f16;
use serde_json::{Value, json};

use crate::daemon::TestDaemon;
use crate::gguf_model::{GgufTestLayer, LAYERS, daemon_with_gguf};
use crate::safetensors_file::{TensorToWrite, write_safetensors};

/// Inputs that share a scale.
pub const GROUP: usize = 16;
/// Where AWQ keeps eight neighbours in a word.
const AWQ_ORDER: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];
/// Options of a run with `--once`.
pub const ONCE: [&str; 9] = [
    "--once",
    "--watch",
    "activations",
    "--checkpoint",
    "checkpoint",
    "--quantized",
    "packed",
    "--rank",
    "4",
];

/// A weight as codes.
#[derive(Debug, Clone)]
pub struct CodedWeight {
    /// Module.
    pub module: String,
    inputs: usize,
    outputs: usize,
    bits: u32,
    /// The group of each input.
    group_of: Vec<usize>,
    groups: usize,
    /// [outputs, inputs], from 0 on.
    codes: Vec<u32>,
    /// [outputs, groups], among the codes.
    zeros: Vec<u32>,
    /// [outputs, groups].
    pub scales: Vec<f16>,
}

/// How weights become codes.
#[derive(Debug, Clone, Copy)]
pub struct Coding {
    /// Bits of a code: 4 or 8.
    pub bits: u32,
    /// Whether the middle code is zero.
    pub symmetric: bool,
    /// Whether the inputs are grouped in another order than their own.
    pub ordered: bool,
}

impl CodedWeight {
    /// The codes of a layer of these weights, [outputs, inputs].
    #[must_use]
    pub fn new(layer: &GgufTestLayer, weight: &[f32], coding: Coding) -> Self {
        let (inputs, outputs) = (layer.in_features, layer.out_features);
        let place = |input: usize| match coding.ordered {
            true => (input * 7 + 3) % inputs,
            false => input,
        };
        let groups = inputs / GROUP;
        let mut of = Self {
            module: layer.module.to_owned(),
            inputs,
            outputs,
            bits: coding.bits,
            group_of: (0..inputs).map(|input| place(input) / GROUP).collect(),
            groups,
            codes: vec![0; inputs * outputs],
            zeros: Vec::new(),
            scales: Vec::new(),
        };
        for output in 0..outputs {
            for group in 0..groups {
                of.code(weight, output, group, coding.symmetric);
            }
        }
        of
    }

    fn code(&mut self, weight: &[f32], output: usize, group: usize, symmetric: bool) {
        let most = (1_u32 << self.bits) - 1;
        let members = (0..self.inputs).filter(|input| self.group_of[*input] == group);
        let members: Vec<usize> = members.map(|input| output * self.inputs + input).collect();
        let values = || members.iter().map(|&at| weight[at]);
        let (low, high) = values().fold((0.0_f32, 0.0_f32), |(l, h), v| (l.min(v), h.max(v)));
        let middle = 1 << (self.bits - 1);
        let scale = match symmetric {
            true => high.max(-low) / (middle - 1) as f32,
            false => (high - low) / most as f32,
        };
        let scale = f16::from_f32(scale);
        let wide = scale.to_f32();
        let zero = match symmetric {
            true => middle,
            // At least one, so that one less is a code.
            false => ((-low / wide).round() as u32).clamp(1, most),
        };
        for &at in &members {
            let code = (weight[at] / wide).round() + zero as f32;
            self.codes[at] = code.clamp(0.0, most as f32) as u32;
        }
        self.zeros.push(zero);
        self.scales.push(scale);
    }

    /// W~, [outputs, inputs].
    #[must_use]
    pub fn values(&self) -> Vec<f32> {
        let value = |(at, code): (usize, &u32)| {
            let (output, input) = (at / self.inputs, at % self.inputs);
            let grid = output * self.groups + self.group_of[input];
            (*code as i32 - self.zeros[grid] as i32) as f32 * self.scales[grid].to_f32()
        };
        self.codes.iter().enumerate().map(value).collect()
    }

    fn tensor(&self, part: &str, dtype: &str, shape: &[usize], bytes: Vec<u8>) -> TensorToWrite {
        TensorToWrite::new(&format!("{}.{part}", self.module), dtype, shape, bytes)
    }

    fn words(&self, part: &str, shape: [usize; 2], words: &[u32]) -> TensorToWrite {
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        self.tensor(part, "I32", &shape, bytes.collect())
    }

    fn per_word(&self) -> usize {
        32 / self.bits as usize
    }

    /// Packs along the rows of [height, width].
    fn along_rows(&self, codes: &[u32], width: usize) -> Vec<u32> {
        let rows = codes.chunks(width * self.per_word());
        let words = rows.flat_map(|rows| {
            (0..width).map(|column| {
                let fields = rows.iter().skip(column).step_by(width).enumerate();
                fields.fold(0, |word, (place, code)| {
                    word | code << (self.bits * place as u32)
                })
            })
        });
        words.collect()
    }

    fn listed(&self, part: &str) -> TensorToWrite {
        let groups = self.group_of.iter().map(|group| *group as i32);
        let bytes = groups.flat_map(i32::to_le_bytes).collect();
        self.tensor(part, "I32", &[self.inputs], bytes)
    }

    fn is_ordered(&self) -> bool {
        !self.group_of.is_sorted()
    }

    /// As compressed-tensors packs it.
    #[must_use]
    pub fn compressed_tensors(&self, symmetric: bool) -> Vec<TensorToWrite> {
        let (n, m) = (self.outputs, self.inputs);
        let rows = transposed(&self.codes, n, m);
        let words = transposed(&self.along_rows(&rows, n), m / self.per_word(), n);
        let shape = [n as i64, m as i64];
        let scales = self.scales.iter().flat_map(|of| of.to_le_bytes()).collect();
        let mut tensors = vec![
            self.words("weight_packed", [n, m / self.per_word()], &words),
            self.tensor("weight_scale", "F16", &[n, self.groups], scales),
            self.tensor(
                "weight_shape",
                "I64",
                &[2],
                shape.into_iter().flat_map(i64::to_le_bytes).collect(),
            ),
        ];
        if !symmetric {
            let zeros = self.along_rows(&self.zeros, self.groups);
            let shape = [n / self.per_word(), self.groups];
            tensors.push(self.words("weight_zero_point", shape, &zeros));
        }
        if self.is_ordered() {
            tensors.push(self.listed("weight_g_idx"));
        }
        tensors
    }

    /// As GPTQ packs it, zero points so much less than they are.
    #[must_use]
    pub fn gptq(&self, less: u32) -> Vec<TensorToWrite> {
        let (n, m, per_word) = (self.outputs, self.inputs, self.per_word());
        let codes = self.along_rows(&transposed(&self.codes, n, m), n);
        let zeros: Vec<u32> = self.zeros.iter().map(|zero| zero - less).collect();
        let zeros = self.along_rows(&zeros, self.groups);
        let zeros = transposed(&zeros, n / per_word, self.groups);
        let mut tensors = vec![
            self.words("qweight", [m / per_word, n], &codes),
            self.words("qzeros", [self.groups, n / per_word], &zeros),
            self.scales_by_group(),
        ];
        if self.is_ordered() {
            tensors.push(self.listed("g_idx"));
        }
        tensors
    }

    /// As AWQ GEMM packs it.
    #[must_use]
    pub fn awq(&self) -> Vec<TensorToWrite> {
        let (n, m) = (self.outputs, self.inputs);
        let packed = |codes: &[u32]| -> Vec<u32> {
            let words = codes.chunks(8).map(|eight| {
                let fields = eight.iter().zip(AWQ_ORDER);
                fields.fold(0, |word, (code, place)| word | code << (4 * place))
            });
            words.collect()
        };
        let codes = packed(&transposed(&self.codes, n, m));
        let zeros = packed(&transposed(&self.zeros, n, self.groups));
        vec![
            self.words("qweight", [m, n / 8], &codes),
            self.words("qzeros", [self.groups, n / 8], &zeros),
            self.scales_by_group(),
        ]
    }

    fn scales_by_group(&self) -> TensorToWrite {
        let scales = transposed(&self.scales, self.outputs, self.groups);
        let bytes = scales.iter().flat_map(|of| of.to_le_bytes()).collect();
        self.tensor("scales", "F16", &[self.groups, self.outputs], bytes)
    }
}

/// [height, width] as [width, height].
fn transposed<T: Copy>(values: &[T], height: usize, width: usize) -> Vec<T> {
    let place = |at: usize| values[at % height * width + at / height];
    (0..values.len()).map(place).collect()
}

/// A packed model to be written.
#[derive(Debug, Clone)]
pub struct PackedModel {
    /// `quantization_config`.
    pub config: Value,
    /// Its tensors.
    pub tensors: Vec<TensorToWrite>,
    /// W~ of [`LAYERS`].
    pub values: Vec<Vec<f32>>,
}

impl PackedModel {
    fn new(
        config: Value,
        coding: Coding,
        weights: &[Vec<f32>; 3],
        pack: impl Fn(&CodedWeight) -> Vec<TensorToWrite>,
    ) -> Self {
        let coded = LAYERS.iter().zip(weights);
        let coded: Vec<_> = coded
            .map(|(layer, weight)| CodedWeight::new(layer, weight, coding))
            .collect();
        Self {
            config,
            tensors: coded.iter().flat_map(pack).collect(),
            values: coded.iter().map(CodedWeight::values).collect(),
        }
    }

    /// Of these weights, by compressed-tensors.
    #[must_use]
    pub fn compressed_tensors(weights: &[Vec<f32>; 3], coding: Coding) -> Self {
        let weight_args = json!({
            "num_bits": coding.bits, "type": "int", "symmetric": coding.symmetric,
            "strategy": "group", "group_size": GROUP,
            "actorder": coding.ordered.then_some("group"),
        });
        let config = json!({
            "quant_method": "compressed-tensors", "format": "pack-quantized",
            "quantization_status": "compressed",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weight_args}},
            "ignore": ["lm_head"],
        });
        let pack = |of: &CodedWeight| of.compressed_tensors(coding.symmetric);
        Self::new(config, coding, weights, pack)
    }

    /// Of these weights, by GPTQ; `less` is what zero points are stored less, `label` its
    /// checkpoint_format.
    #[must_use]
    pub fn gptq(weights: &[Vec<f32>; 3], coding: Coding, less: u32, label: &str) -> Self {
        let config = json!({
            "quant_method": "gptq", "bits": coding.bits, "group_size": GROUP,
            "desc_act": coding.ordered, "sym": coding.symmetric, "checkpoint_format": label,
        });
        Self::new(config, coding, weights, |of| of.gptq(less))
    }

    /// Of these weights, by AWQ GEMM.
    #[must_use]
    pub fn awq(weights: &[Vec<f32>; 3]) -> Self {
        let config = json!({
            "quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": true,
            "version": "GEMM",
        });
        let coding = Coding {
            bits: 4,
            symmetric: false,
            ordered: false,
        };
        Self::new(config, coding, weights, CodedWeight::awq)
    }

    /// A layer as it was, in the place of its packed tensors.
    #[must_use]
    pub fn unpacked(mut self, layer: usize, weight: &[f32]) -> Self {
        let GgufTestLayer {
            module,
            out_features,
            in_features,
            ..
        } = LAYERS[layer];
        let own = format!("{module}.");
        self.tensors.retain(|tensor| !tensor.name.starts_with(&own));
        let name = format!("{module}.weight");
        let shape = [out_features, in_features];
        self.tensors.push(TensorToWrite::f32(&name, &shape, weight));
        self.values[layer] = weight.to_vec();
        self
    }

    /// A tensor of it, by the end of its name.
    ///
    /// # Panics
    /// When there is none.
    pub fn tensor(&mut self, end: &str) -> &mut TensorToWrite {
        let mut tensors = self.tensors.iter_mut();
        tensors.find(|tensor| tensor.name.ends_with(end)).unwrap()
    }

    /// Writes the folder.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        write_safetensors(&folder.join("model.safetensors"), &self.tensors, &[]);
        let config = json!({"model_type": "llama", "quantization_config": self.config});
        fs::write(folder.join("config.json"), config.to_string()).unwrap();
    }
}

/// W of [`LAYERS`].
#[must_use]
pub fn weights() -> [Vec<f32>; 3] {
    LAYERS.map(|layer| layer.weight())
}

/// What most tests pack.
pub const PLAIN: Coding = Coding {
    bits: 4,
    symmetric: false,
    ordered: false,
};

/// A daemon's folder with `checkpoint`, two shards, and this model in `packed`.
///
/// # Panics
/// When it cannot be written.
#[must_use]
pub fn daemon_with_packed(binary: &str, model: &PackedModel) -> TestDaemon {
    let daemon = daemon_with_gguf(binary);
    model.write(&daemon.path().join("packed"));
    daemon
}
