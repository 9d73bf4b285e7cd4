//! Reading GGUF files for tests, by an independent reader of sound ones: keys as bytes, tensors as
//! bytes and as numbers.
#![allow(clippy::unwrap_used, reason = "tests only")]

use std::path::Path;

use half::{bf16, f16};

/// Bytes of a value of each type but strings (8) and arrays (9).
const WIDTHS: [usize; 13] = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// A GGUF.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadGguf {
    /// Its keys, in their order.
    pub keys: Vec<ReadKey>,
    /// Its tensors, in their order.
    pub tensors: Vec<ReadGgufTensor>,
    /// What tensors begin at multiples of.
    pub alignment: usize,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadKey {
    /// Its name.
    pub name: String,
    /// Type and value.
    pub bytes: Vec<u8>,
}

/// A tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadGgufTensor {
    /// Its name.
    pub name: String,
    /// Lengths, the fastest first.
    pub ne: Vec<usize>,
    /// ggml's number of its type.
    pub type_number: u32,
    /// Its place in the data.
    pub offset: usize,
    /// Byte of the file where it begins.
    pub start: usize,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A place in bytes.
struct Place<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Place<'b> {
    fn take(&mut self, count: usize) -> &'b [u8] {
        self.at += count;
        &self.bytes[self.at - count..self.at]
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn length(&mut self) -> usize {
        usize::try_from(u64::from_le_bytes(self.take(8).try_into().unwrap())).unwrap()
    }

    fn text(&mut self) -> String {
        let length = self.length();
        String::from_utf8(self.take(length).to_vec()).unwrap()
    }

    fn skip_value(&mut self, of: u32) {
        match of {
            STRING => {
                self.text();
            }
            ARRAY => {
                let (of, count) = (self.u32(), self.length());
                (0..count).for_each(|_| self.skip_value(of));
            }
            _ => {
                self.take(WIDTHS[of as usize]);
            }
        }
    }
}

impl ReadGguf {
    /// Reads it.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let mut place = Place {
            bytes: &bytes,
            at: 0,
        };
        assert_eq!(place.take(8), b"GGUF\x03\0\0\0");
        let (tensors, keys) = (place.length(), place.length());
        let keys: Vec<ReadKey> = (0..keys)
            .map(|_| {
                let name = place.text();
                let begin = place.at;
                let of = place.u32();
                place.skip_value(of);
                let bytes = bytes[begin..place.at].to_vec();
                ReadKey { name, bytes }
            })
            .collect();
        let alignment = keys.iter().find(|key| key.name == "general.alignment");
        let alignment = alignment.map_or(32, |key| usize::from(key.bytes[4]));
        let mut tensors: Vec<ReadGgufTensor> = (0..tensors)
            .map(|_| ReadGgufTensor {
                name: place.text(),
                ne: (0..place.u32()).map(|_| place.length()).collect(),
                type_number: place.u32(),
                offset: place.length(),
                start: 0,
                bytes: Vec::new(),
            })
            .collect();
        let data = place.at.next_multiple_of(alignment);
        for tensor in &mut tensors {
            tensor.start = data + tensor.offset;
            tensor.bytes = bytes[tensor.start..][..tensor.length()].to_vec();
        }
        Self {
            keys,
            tensors,
            alignment,
        }
    }

    /// A tensor.
    ///
    /// # Panics
    /// When there is none of this name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> &ReadGgufTensor {
        self.tensors.iter().find(|of| of.name == name).unwrap()
    }

    /// A key that is a u32.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn number(&self, name: &str) -> u32 {
        let key = self.keys.iter().find(|key| key.name == name).unwrap();
        assert_eq!(key.bytes[..4], 4_u32.to_le_bytes(), "{name}");
        u32::from_le_bytes(key.bytes[4..].try_into().unwrap())
    }
}

impl ReadGgufTensor {
    fn length(&self) -> usize {
        let count: usize = self.ne.iter().product();
        match self.type_number {
            0 => count * 4,
            1 | 30 => count * 2,
            2 => count / 32 * 18,
            6 => count / 32 * 22,
            8 => count / 32 * 34,
            other => panic!("type {other}"),
        }
    }

    /// Its numbers.
    ///
    /// # Panics
    /// For a type that this reader does not know.
    #[must_use]
    pub fn values(&self) -> Vec<f32> {
        let pairs = || self.bytes.chunks(2).map(|b| [b[0], b[1]]);
        match self.type_number {
            0 => {
                let words = self.bytes.chunks(4);
                words
                    .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                    .collect()
            }
            1 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
            30 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
            2 => blocks(&self.bytes, 18, |b, j| i16::from(nibble(&b[2..], j)) - 8),
            6 => blocks(&self.bytes, 22, |b, j| {
                let fifth = b[2 + j / 8] >> (j % 8) & 1;
                i16::from(nibble(&b[6..], j) | fifth << 4) - 16
            }),
            8 => blocks(&self.bytes, 34, |b, j| i16::from(b[2 + j].cast_signed())),
            other => panic!("type {other}"),
        }
    }
}

/// Of 32 numbers: those of the first half are low, those of the second high.
fn nibble(bytes: &[u8], j: usize) -> u8 {
    bytes[j % 16] >> (j / 16 * 4) & 15
}

/// Scales times codes.
fn blocks(bytes: &[u8], size: usize, code: impl Fn(&[u8], usize) -> i16) -> Vec<f32> {
    let values = bytes.chunks(size).flat_map(|block| {
        let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
        let of_block = (0..32).map(|j| f32::from(code(block, j)) * scale);
        of_block.collect::<Vec<_>>()
    });
    values.collect()
}
