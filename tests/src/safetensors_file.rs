//! Writing safetensors files for tests: good ones here, bad ones by editing what this writes.

use std::path::Path;

use half::{bf16, f16};
use serde_json::json;

/// A tensor to be written.
#[derive(Debug, Clone)]
pub struct TensorToWrite {
    /// Key.
    pub name: String,
    /// `F32`, `BF16`, `F16`, `U8`, or anything that a test wants to claim.
    pub dtype: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Little-endian bytes.
    pub bytes: Vec<u8>,
}

impl TensorToWrite {
    /// f32 values, written as they are.
    #[must_use]
    pub fn f32(name: &str, shape: &[usize], values: &[f32]) -> Self {
        Self::new(
            name,
            "F32",
            shape,
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        )
    }

    /// Values rounded to bf16.
    #[must_use]
    pub fn bf16(name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values
            .iter()
            .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
            .collect();
        Self::new(name, "BF16", shape, bytes)
    }

    /// Values rounded to f16.
    #[must_use]
    pub fn f16(name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values
            .iter()
            .flat_map(|v| f16::from_f32(*v).to_le_bytes())
            .collect();
        Self::new(name, "F16", shape, bytes)
    }

    /// A mask.
    #[must_use]
    pub fn u8(name: &str, shape: &[usize], values: &[u8]) -> Self {
        Self::new(name, "U8", shape, values.to_vec())
    }

    /// Any bytes under any type name.
    #[must_use]
    pub fn new(name: &str, dtype: &str, shape: &[usize], bytes: Vec<u8>) -> Self {
        Self {
            name: name.into(),
            dtype: dtype.into(),
            shape: shape.to_vec(),
            bytes,
        }
    }
}

/// One entry of a file's metadata.
#[derive(Debug, Clone, Copy)]
pub struct Metadata<'a> {
    key: &'a str,
    value: &'a str,
}

impl<'a> Metadata<'a> {
    /// One of its entries.
    #[must_use]
    pub const fn new(key: &'a str, value: &'a str) -> Self {
        Self { key, value }
    }
}

/// Writes the tensors with metadata, by an independent writer: format as in the safetensors README.
///
/// # Panics
/// When the file cannot be written.
pub fn write_safetensors(path: &Path, tensors: &[TensorToWrite], metadata: &[Metadata<'_>]) {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        let metadata: serde_json::Map<_, _> = metadata
            .iter()
            .map(|entry| (entry.key.into(), json!(entry.value)))
            .collect();
        header.insert("__metadata__".into(), metadata.into());
    }
    let mut data = Vec::new();
    for tensor in tensors {
        let start = data.len();
        data.extend_from_slice(&tensor.bytes);
        header.insert(
            tensor.name.clone(),
            json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, data.len()]}),
        );
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&data);
    #[expect(clippy::expect_used, reason = "tests only")]
    std::fs::write(path, file).expect("the test's folder is writable");
}
