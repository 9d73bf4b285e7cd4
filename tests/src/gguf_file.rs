//! Writing GGUF files for tests, by an independent writer: good ones here, bad ones by editing what
//! this writes. Layout as in ggml's docs/gguf.md, version 3.
#![allow(clippy::unwrap_used, reason = "tests only")]

use std::path::Path;

use half::f16;

/// ggml's numbers of types.
pub const F32: u32 = 0;
/// Blocks of 32: an f16 scale, and 4 bits for each number, of which 8 is zero; the first 16 low.
pub const Q4_0: u32 = 2;
/// Numbers of a block of [`Q4_0`].
pub const BLOCK: usize = 32;
const ALIGNMENT: usize = 32;
const ALIGNMENT_KEY: &str = "general.alignment";
const UINT32: u32 = 4;
const STRING: u32 = 8;

/// A GGUF to be written.
#[derive(Debug, Clone, Default)]
pub struct GgufToWrite {
    metadata: Vec<Vec<u8>>,
    /// 0 stands for the usual one.
    alignment: usize,
    /// Its tensors.
    pub tensors: Vec<GgufTensorToWrite>,
}

/// A tensor to be written.
#[derive(Debug, Clone)]
pub struct GgufTensorToWrite {
    /// Name.
    pub name: String,
    /// Lengths, the fastest first.
    pub ne: Vec<usize>,
    /// ggml's number of its type.
    pub type_number: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl GgufTensorToWrite {
    /// Numbers as they are.
    #[must_use]
    pub fn f32(name: &str, ne: &[usize], values: &[f32]) -> Self {
        Self {
            name: name.into(),
            ne: ne.to_vec(),
            type_number: F32,
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    /// Numbers in Q4_0, of which only the levels from -4 to 4 are used, so that there is an error
    /// to correct.
    #[must_use]
    pub fn coarse(name: &str, ne: &[usize], values: &[f32]) -> Self {
        Self {
            name: name.into(),
            ne: ne.to_vec(),
            type_number: Q4_0,
            bytes: values.chunks(BLOCK).flat_map(coarse_block).collect(),
        }
    }
}

/// A block of nine levels.
fn coarse_block(values: &[f32]) -> Vec<u8> {
    let scale = coarse_scale(values);
    let level = |v: &f32| {
        let level = coarse_level(*v, scale.to_f32());
        let levels = (-4_i8..=4).find(|of| (f32::from(*of) - level).abs() < 0.5);
        (levels.unwrap_or_default() + 8).unsigned_abs()
    };
    let (low, high) = values.split_at(BLOCK / 2);
    let both = low.iter().zip(high);
    let codes = both.map(|(low, high)| level(low) | level(high) << 4);
    scale.to_le_bytes().into_iter().chain(codes).collect()
}

fn coarse_level(value: f32, scale: f32) -> f32 {
    (value / scale).round().clamp(-4.0, 4.0)
}

fn coarse_scale(values: &[f32]) -> f16 {
    let largest = values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    f16::from_f32(largest.max(1.0e-3) / 4.0)
}

/// What [`GgufTensorToWrite::coarse`] decodes to.
#[must_use]
pub fn coarse_values(values: &[f32]) -> Vec<f32> {
    let blocks = values.chunks(BLOCK).flat_map(|values| {
        let scale = coarse_scale(values).to_f32();
        let decoded = values.iter().map(move |v| coarse_level(*v, scale) * scale);
        decoded.collect::<Vec<_>>()
    });
    blocks.collect()
}

impl GgufToWrite {
    /// Of a model of this architecture with so many heads.
    #[must_use]
    pub fn model(architecture: &str, heads: u32, key_heads: u32) -> Self {
        Self::default()
            .text("general.architecture", architecture)
            .number(&format!("{architecture}.attention.head_count"), heads)
            .number(
                &format!("{architecture}.attention.head_count_kv"),
                key_heads,
            )
    }

    /// With a text.
    #[must_use]
    pub fn text(mut self, key: &str, value: &str) -> Self {
        let mut bytes = string(key);
        bytes.extend(STRING.to_le_bytes());
        bytes.extend(string(value));
        self.metadata.push(bytes);
        self
    }

    /// With a number.
    #[must_use]
    pub fn number(mut self, key: &str, value: u32) -> Self {
        let mut bytes = string(key);
        bytes.extend(UINT32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
        self.metadata.push(bytes);
        self
    }

    /// With a value of another type, as its bytes.
    #[must_use]
    pub fn value(mut self, key: &str, type_number: u32, bytes: &[u8]) -> Self {
        let entry = [&string(key), &type_number.to_le_bytes()[..], bytes].concat();
        self.metadata.push(entry);
        self
    }

    /// With tensors at multiples of this.
    #[must_use]
    pub fn aligned(mut self, alignment: u32) -> Self {
        self.alignment = alignment as usize;
        self.number(ALIGNMENT_KEY, alignment)
    }

    /// With a tensor.
    #[must_use]
    pub fn tensor(mut self, tensor: GgufTensorToWrite) -> Self {
        self.tensors.push(tensor);
        self
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3_u32.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.metadata.len() as u64).to_le_bytes());
        file.extend(self.metadata.iter().flatten());
        let mut data = Vec::new();
        let alignment = self.alignment.max(ALIGNMENT);
        for tensor in &self.tensors {
            file.extend(string(&tensor.name));
            file.extend(u32::try_from(tensor.ne.len()).unwrap().to_le_bytes());
            file.extend(tensor.ne.iter().flat_map(|&n| (n as u64).to_le_bytes()));
            file.extend(tensor.type_number.to_le_bytes());
            file.extend((data.len() as u64).to_le_bytes());
            data.extend(&tensor.bytes);
            pad(&mut data, alignment);
        }
        pad(&mut file, alignment);
        file.extend(data);
        file
    }

    /// Writes it.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes()).unwrap();
    }
}

fn pad(bytes: &mut Vec<u8>, alignment: usize) {
    bytes.resize(bytes.len().next_multiple_of(alignment), 0);
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}
