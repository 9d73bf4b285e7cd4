//! A GGUF of an adapter, read by independent code. Layout as in ggml's docs/gguf.md, version 3.
#![allow(clippy::unwrap_used, reason = "tests only")]

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};

/// An adapter's file.
#[derive(Debug, Clone)]
pub struct GgufLora {
    /// Metadata that are text.
    pub texts: BTreeMap<String, String>,
    /// Metadata that are numbers of 32 bits which need not be whole.
    pub floats: BTreeMap<String, f32>,
    /// Tensors by name.
    pub tensors: BTreeMap<String, GgufLoraTensor>,
}

/// A tensor of it.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufLoraTensor {
    /// Lengths, the fastest first.
    pub ne: Vec<usize>,
    /// ggml's number of its type.
    pub type_number: u32,
    /// Byte of the file where it starts.
    pub start: usize,
    /// Its numbers.
    pub values: Vec<f32>,
}

struct Bytes<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.bytes[self.at..self.at + N].try_into().unwrap();
        self.at += N;
        taken
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn length(&mut self) -> usize {
        usize::try_from(u64::from_le_bytes(self.take())).unwrap()
    }

    fn text(&mut self) -> String {
        let length = self.length();
        let text = self.bytes[self.at..self.at + length].to_vec();
        self.at += length;
        String::from_utf8(text).unwrap()
    }
}

impl GgufLora {
    /// Reads it.
    ///
    /// # Panics
    /// When it is no such file, or has metadata that are no text and no f32.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        let file = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut bytes = Bytes {
            bytes: &file,
            at: 0,
        };
        assert_eq!(&bytes.take::<4>(), b"GGUF");
        assert_eq!(bytes.u32(), 3);
        let (count, keys) = (bytes.length(), bytes.length());
        let mut found = Self {
            texts: BTreeMap::new(),
            floats: BTreeMap::new(),
            tensors: BTreeMap::new(),
        };
        for _ in 0..keys {
            let key = bytes.text();
            match bytes.u32() {
                6 => {
                    let number = f32::from_le_bytes(bytes.take());
                    found.floats.insert(key, number);
                }
                8 => {
                    let text = bytes.text();
                    found.texts.insert(key, text);
                }
                other => panic!("{key} is of type {other}"),
            }
        }
        for _ in 0..count {
            let name = bytes.text();
            let ne: Vec<usize> = (0..bytes.u32()).map(|_| bytes.length()).collect();
            let tensor = GgufLoraTensor {
                ne,
                type_number: bytes.u32(),
                start: bytes.length(),
                values: Vec::new(),
            };
            found.tensors.insert(name, tensor);
        }
        let data = bytes.at.next_multiple_of(32);
        for tensor in found.tensors.values_mut() {
            tensor.start += data;
            let numbers: usize = tensor.ne.iter().product();
            let stored = &file[tensor.start..];
            tensor.values = match tensor.type_number {
                0 => of(stored, numbers, f32::from_le_bytes),
                1 => of(stored, numbers, |b| f16::from_le_bytes(b).to_f32()),
                30 => of(stored, numbers, |b| bf16::from_le_bytes(b).to_f32()),
                8 => blocks(&stored[..numbers / 32 * 34]),
                other => panic!("type {other}"),
            };
        }
        found
    }
}

/// Q8_0: a scale in f16 and 32 codes of eight bits.
fn blocks(stored: &[u8]) -> Vec<f32> {
    let of_block = |block: &[u8]| {
        let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
        let codes = block[2..].iter().map(|byte| f32::from(byte.cast_signed()));
        codes.map(|code| scale * code).collect::<Vec<_>>()
    };
    stored.chunks_exact(34).flat_map(of_block).collect()
}

fn of<const N: usize>(stored: &[u8], numbers: usize, value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let each = stored[..numbers * N].chunks_exact(N);
    each.map(|bytes| value(bytes.try_into().unwrap())).collect()
}
