//! Imatrix files for tests: written and read by code of its own, in both of llama.cpp's layouts.
#![allow(clippy::unwrap_used, reason = "tests only")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "what llama.cpp sums up is f32, and lengths are small"
)]

use std::collections::BTreeMap;

/// Bytes that tensor data begins at a multiple of.
const ALIGNMENT: usize = 32;
/// Types of metadata.
const UINT32: u32 = 4;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// One weight's sums.
#[derive(Debug, Clone, PartialEq)]
pub struct ImatrixEntry {
    /// Name of the weight in a GGUF, with `.weight`.
    pub name: String,
    /// Sum of x^2, by channel.
    pub sums: Vec<f32>,
    /// Rows in it; chunks in the legacy layout.
    pub count: f32,
    /// Sum of x, by channel, where it was kept.
    pub sums_of_x: Option<Vec<f32>>,
}

impl ImatrixEntry {
    /// What llama.cpp would sum up of these rows, in f64 until it is written.
    #[must_use]
    pub fn of_rows(name: &str, rows: &[f32], in_features: usize) -> Self {
        let mut sums = vec![0.0_f64; in_features];
        for row in rows.chunks_exact(in_features) {
            for (sum, x) in sums.iter_mut().zip(row) {
                *sum += f64::from(*x).powi(2);
            }
        }
        Self {
            name: name.into(),
            sums: sums.iter().map(|sum| *sum as f32).collect(),
            count: (rows.len() / in_features) as f32,
            sums_of_x: None,
        }
    }
}

/// What a file holds, as this reader found it.
#[derive(Debug, Default)]
pub struct FoundImatrix {
    /// Keys and values of the metadata, numbers as text, arrays joined by a comma.
    pub metadata: BTreeMap<String, String>,
    /// Names of tensors, as they lie in the header.
    pub names: Vec<String>,
    /// Dimensions, the fastest first, and numbers of each.
    pub tensors: BTreeMap<String, FoundTensor>,
}

/// A tensor of f32.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundTensor {
    /// Dimensions, the fastest first.
    pub ne: Vec<u64>,
    /// Its numbers.
    pub values: Vec<f32>,
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn number(bytes: &mut Vec<u8>, key: &str, value: u32) {
    text(bytes, key);
    bytes.extend(UINT32.to_le_bytes());
    bytes.extend(value.to_le_bytes());
}

/// A file in the GGUF layout: chunks of 512 tokens.
#[must_use]
pub fn gguf_imatrix(entries: &[ImatrixEntry], dataset: &str, chunks: u32) -> Vec<u8> {
    let mut tensors: Vec<(String, Vec<u64>, &[f32])> = Vec::new();
    for entry in entries {
        let width = entry.sums.len() as u64;
        let count = core::slice::from_ref(&entry.count);
        tensors.push((
            format!("{}.in_sum2", entry.name),
            vec![width, 1],
            &entry.sums,
        ));
        tensors.push((format!("{}.counts", entry.name), vec![1, 1], count));
        if let Some(sums) = &entry.sums_of_x {
            tensors.push((format!("{}.in_sum", entry.name), vec![width, 1], sums));
        }
    }
    let mut file = b"GGUF".to_vec();
    file.extend(3_u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend(4_u64.to_le_bytes());
    text(&mut file, "general.type");
    file.extend(STRING.to_le_bytes());
    text(&mut file, "imatrix");
    text(&mut file, "imatrix.datasets");
    file.extend(ARRAY.to_le_bytes());
    file.extend(STRING.to_le_bytes());
    file.extend(1_u64.to_le_bytes());
    text(&mut file, dataset);
    number(&mut file, "imatrix.chunk_count", chunks);
    number(&mut file, "imatrix.chunk_size", 512);
    let mut data: Vec<u8> = Vec::new();
    for (name, ne, values) in &tensors {
        text(&mut file, name);
        file.extend((ne.len() as u32).to_le_bytes());
        ne.iter().for_each(|n| file.extend(n.to_le_bytes()));
        file.extend(0_u32.to_le_bytes()); // F32.
        file.extend((data.len() as u64).to_le_bytes());
        values.iter().for_each(|v| data.extend(v.to_le_bytes()));
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
    }
    file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
    file.extend(data);
    file
}

/// A file in the legacy layout; the unit of a count is a chunk, and a value over it is the mean of
/// x^2 over tokens.
#[must_use]
pub fn legacy_imatrix(entries: &[ImatrixEntry], chunks: i32, dataset: &str) -> Vec<u8> {
    let mut file = (entries.len() as i32).to_le_bytes().to_vec();
    for entry in entries {
        file.extend((entry.name.len() as i32).to_le_bytes());
        file.extend(entry.name.as_bytes());
        file.extend(chunks.to_le_bytes());
        file.extend((entry.sums.len() as i32).to_le_bytes());
        for sum in &entry.sums {
            let value = sum / entry.count * chunks as f32;
            file.extend(value.to_le_bytes());
        }
    }
    file.extend(chunks.to_le_bytes());
    file.extend((dataset.len() as i32).to_le_bytes());
    file.extend(dataset.as_bytes());
    file
}

/// Bytes that are taken from the front.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().unwrap())
    }

    fn text(&mut self) -> String {
        let length = self.u64() as usize;
        String::from_utf8(self.take(length).to_vec()).unwrap()
    }

    fn value(&mut self, kind: u32) -> String {
        match kind {
            UINT32 => self.u32().to_string(),
            STRING => self.text(),
            ARRAY => {
                let (kind, count) = (self.u32(), self.u64());
                let values: Vec<String> = (0..count).map(|_| self.value(kind)).collect();
                values.join(",")
            }
            _ => panic!("type {kind} in an imatrix"),
        }
    }
}

/// Reads a file in the GGUF layout.
///
/// # Panics
/// When it is none, or has a tensor that is not f32.
#[must_use]
pub fn read_gguf_imatrix(file: &[u8]) -> FoundImatrix {
    let mut found = FoundImatrix::default();
    let mut cursor = Cursor(file);
    assert_eq!(cursor.take(4), b"GGUF");
    assert_eq!(cursor.u32(), 3, "version");
    let (tensors, keys) = (cursor.u64(), cursor.u64());
    for _ in 0..keys {
        let key = cursor.text();
        let kind = cursor.u32();
        let value = cursor.value(kind);
        found.metadata.insert(key, value);
    }
    let mut places = Vec::new();
    for _ in 0..tensors {
        let name = cursor.text();
        let dimensions = cursor.u32();
        let ne: Vec<u64> = (0..dimensions).map(|_| cursor.u64()).collect();
        assert_eq!(cursor.u32(), 0, "{name} is f32");
        places.push((name, ne, cursor.u64() as usize));
    }
    let start = (file.len() - cursor.0.len()).next_multiple_of(ALIGNMENT);
    for (name, ne, offset) in places {
        let count = ne.iter().product::<u64>() as usize;
        let bytes = &file[start + offset..][..4 * count];
        let values = bytes.as_chunks::<4>().0.iter();
        let values = values.map(|b| f32::from_le_bytes(*b)).collect();
        found.names.push(name.clone());
        found.tensors.insert(name, FoundTensor { ne, values });
    }
    found
}
