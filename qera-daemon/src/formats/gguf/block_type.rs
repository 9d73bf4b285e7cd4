//! The types of a GGUF's tensors, by their numbers.
//!
//! Numbers, lengths and bytes are those of ggml (`ggml_get_type_traits`); Python's `gguf` says the
//! same, but for `Q8_1`, whose block it gives 40 bytes where ggml has 36, and for `Q2_0`, which it
//! does not know.

use core::fmt;

/// The first number that forks of llama.cpp use for types of their own (ik_llama.cpp: from 133 on).
const FIRST_OF_FORKS: u32 = 133;

/// A type whose blocks are read as weights. The names are ggml's, without `GGML_TYPE_`.
#[expect(
    non_camel_case_types,
    reason = "everyone knows the types by these names"
)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum BlockType {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ2_XXS,
    IQ2_XS,
    IQ3_XXS,
    IQ1_S,
    IQ4_NL,
    IQ3_S,
    IQ2_S,
    IQ4_XS,
    IQ1_M,
    BF16,
    TQ1_0,
    TQ2_0,
    MXFP4,
    NVFP4,
    Q1_0,
    Q2_0,
}

/// The size of a type's blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StoredSize {
    /// The number of numbers in a block.
    pub(crate) len: usize,
    /// The number of bytes of a block.
    pub(crate) bytes: usize,
}

/// ggml's entry for a type.
struct Row {
    number: u32,
    name: &'static str,
    size: StoredSize,
}

impl Row {
    const fn new(number: u32, name: &'static str, len: usize, bytes: usize) -> Self {
        Self {
            number,
            name,
            size: StoredSize { len, bytes },
        }
    }
}

/// The types that are read, in the order of [`BlockType`].
static READ: [Row; 28] = [
    Row::new(0, "F32", 1, 4),
    Row::new(1, "F16", 1, 2),
    Row::new(2, "Q4_0", 32, 18),
    Row::new(3, "Q4_1", 32, 20),
    Row::new(6, "Q5_0", 32, 22),
    Row::new(7, "Q5_1", 32, 24),
    Row::new(8, "Q8_0", 32, 34),
    Row::new(10, "Q2_K", 256, 84),
    Row::new(11, "Q3_K", 256, 110),
    Row::new(12, "Q4_K", 256, 144),
    Row::new(13, "Q5_K", 256, 176),
    Row::new(14, "Q6_K", 256, 210),
    Row::new(16, "IQ2_XXS", 256, 66),
    Row::new(17, "IQ2_XS", 256, 74),
    Row::new(18, "IQ3_XXS", 256, 98),
    Row::new(19, "IQ1_S", 256, 50),
    Row::new(20, "IQ4_NL", 32, 18),
    Row::new(21, "IQ3_S", 256, 110),
    Row::new(22, "IQ2_S", 256, 82),
    Row::new(23, "IQ4_XS", 256, 136),
    Row::new(29, "IQ1_M", 256, 56),
    Row::new(30, "BF16", 1, 2),
    Row::new(34, "TQ1_0", 256, 54),
    Row::new(35, "TQ2_0", 256, 66),
    Row::new(39, "MXFP4", 32, 17),
    Row::new(40, "NVFP4", 64, 36),
    Row::new(41, "Q1_0", 128, 18),
    Row::new(42, "Q2_0", 64, 18),
];

/// The types of ggml that hold no weights: types for quantized activations, and other numbers.
static OTHERS: [Row; 7] = [
    Row::new(9, "Q8_1", 32, 36),
    Row::new(15, "Q8_K", 256, 292),
    Row::new(24, "I8", 1, 1),
    Row::new(25, "I16", 1, 2),
    Row::new(26, "I32", 1, 4),
    Row::new(27, "I64", 1, 8),
    Row::new(28, "F64", 1, 8),
];

impl BlockType {
    /// Every type that is read, in the order of the numbers.
    pub(crate) const ALL: [Self; 28] = [
        Self::F32,
        Self::F16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::IQ2_XXS,
        Self::IQ2_XS,
        Self::IQ3_XXS,
        Self::IQ1_S,
        Self::IQ4_NL,
        Self::IQ3_S,
        Self::IQ2_S,
        Self::IQ4_XS,
        Self::IQ1_M,
        Self::BF16,
        Self::TQ1_0,
        Self::TQ2_0,
        Self::MXFP4,
        Self::NVFP4,
        Self::Q1_0,
        Self::Q2_0,
    ];

    /// The type with this number.
    pub(crate) fn of(number: u32) -> Result<Self, UnknownType> {
        let all = Self::ALL.into_iter();
        let mut found = all.filter(|of| of.number() == number);
        found.next().ok_or(UnknownType { number })
    }

    /// The type's number in a file.
    pub(crate) const fn number(self) -> u32 {
        self.row().number
    }

    /// The type's name, as ggml spells it.
    pub(crate) const fn name(self) -> &'static str {
        self.row().name
    }

    /// The number of numbers in a block.
    pub(crate) const fn block_len(self) -> usize {
        self.row().size.len
    }

    /// The number of bytes of a block.
    pub(crate) const fn block_bytes(self) -> usize {
        self.row().size.bytes
    }

    /// Bits of a number, with its share of the scales.
    #[must_use]
    pub(crate) fn bits(self) -> f64 {
        8.0 * self.block_bytes() as f64 / self.block_len() as f64
    }

    const fn row(self) -> &'static Row {
        &READ[self as usize]
    }
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The size of the blocks of the type with this number, even if it is not read; `None` for a number
/// that ggml does not have.
pub(crate) fn stored_size(number: u32) -> Option<StoredSize> {
    let mut rows = READ.iter().chain(&OTHERS);
    rows.find(|row| row.number == number).map(|row| row.size)
}

/// The number of a type that is not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) struct UnknownType {
    /// The number, as the file has it.
    pub(crate) number: u32,
}

impl fmt::Display for UnknownType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number;
        if let Some(row) = OTHERS.iter().find(|row| row.number == number) {
            return write!(f, "type {number} ({}) holds no weights", row.name);
        }
        match number {
            4 | 5 => write!(
                f,
                "type {number} was removed from ggml in 2023: convert anew"
            ),
            31..=33 | 36..=38 => write!(
                f,
                "type {number} was removed from ggml: quantize to {} instead, which is repacked on \
                 loading",
                if number < 34 { "Q4_0" } else { "IQ4_NL" }
            ),
            FIRST_OF_FORKS.. => write!(
                f,
                "type {number} is of a fork (ik_llama.cpp has its own types from \
                 {FIRST_OF_FORKS} on), and is not read: use a file made with llama.cpp"
            ),
            _ => write!(
                f,
                "type {number} is not known: the file is newer than this program, or of a fork"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_row() {
        for (index, of) in BlockType::ALL.into_iter().enumerate() {
            assert_eq!(of as usize, index);
            assert_eq!(format!("{of:?}"), of.name());
            assert_eq!(BlockType::of(of.number()), Ok(of));
            let (len, bytes) = (of.block_len(), of.block_bytes());
            assert_eq!(stored_size(of.number()), Some(StoredSize { len, bytes }));
        }
        assert!(READ.is_sorted_by_key(|row| row.number));
    }

    #[test]
    fn what_is_not_read_has_a_size_where_ggml_has_one() {
        for (number, len, bytes) in [(9, 32, 36), (15, 256, 292), (24, 1, 1), (25, 1, 2)] {
            assert_eq!(stored_size(number), Some(StoredSize { len, bytes }));
        }
        for (number, bytes) in [(26, 4), (27, 8), (28, 8)] {
            assert_eq!(stored_size(number), Some(StoredSize { len: 1, bytes }));
        }
        for number in [4, 5, 31, 32, 33, 36, 37, 38, 43, 133, u32::MAX] {
            assert_eq!(stored_size(number), None, "{number}");
        }
    }

    #[test]
    fn a_number_that_is_not_read_is_refused_by_name() {
        for (number, phrase) in [
            (4, "type 4 was removed from ggml in 2023"),
            (9, "type 9 (Q8_1) holds no weights"),
            (15, "type 15 (Q8_K) holds no weights"),
            (26, "type 26 (I32) holds no weights"),
            (28, "type 28 (F64) holds no weights"),
            (
                33,
                "type 33 was removed from ggml: quantize to Q4_0 instead",
            ),
            (
                36,
                "type 36 was removed from ggml: quantize to IQ4_NL instead",
            ),
            (43, "type 43 is not known"),
            (132, "type 132 is not known"),
            (133, "type 133 is of a fork"),
            (u32::MAX, "type 4294967295 is of a fork"),
        ] {
            let refused = BlockType::of(number).unwrap_err();
            assert!(refused.to_string().starts_with(phrase), "{refused}");
        }
    }
}
