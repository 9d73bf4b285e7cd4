//! A GGUF header, from bytes that may be truncated, lying, or no GGUF at all.
//!
//! Format (gguf.md of ggml; versions 2 and 3 lie alike): "GGUF", u32 version, u64 tensors, u64
//! keys; the keys ([`Metadata`]); of each tensor its name, u32 dimensions, u64 each of them with the
//! one along memory first, u32 type, u64 offset from the start of the data; zeros up to a multiple
//! of the alignment; the data. Everything is little-endian.
//!
//! Every number is checked before it is used. Tensors may lie in any order and may leave gaps, but
//! share no byte. What a header takes in memory is bounded by the file's bytes: names and
//! dimensions are no longer than there, arrays are not copied, and what stands beside them is under
//! 64 MiB by [`TENSORS_MAX`] and the like.

use crate::formats::gguf::block_type::stored_size;
use crate::formats::gguf::cursor::Cursor;
use crate::formats::gguf::error::{GgufError, GgufPlace, GgufProblem, Quoted};
use crate::formats::gguf::metadata::Metadata;

/// First bytes of a file.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
/// Versions that are read.
const VERSIONS: core::ops::RangeInclusive<u32> = 2..=3;
/// Most tensors of a file; a model whose every expert is a tensor of its own has 70,000.
const TENSORS_MAX: u64 = 1 << 18;
/// Least bytes of a tensor's description: the length of its name, a character, the number of
/// dimensions, one of them, type, offset.
const TENSOR_BYTES_MIN: u64 = 33;
/// Most dimensions of a tensor.
const DIMENSIONS_MAX: u32 = 4;
/// Key of the alignment, what it is without, and the largest that is read.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";
pub(crate) const ALIGNMENT: u32 = 32;
const ALIGNMENT_MAX: u32 = 1 << 20;
/// Number of u32 among the types of values.
const U32_NUMBER: u32 = 4;

/// A tensor as the header describes it, checked against the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorClaim {
    /// Name.
    pub(crate) name: String,
    /// Dimensions, the one along memory first.
    pub(crate) ne: Vec<usize>,
    /// Number of its type in ggml.
    pub(crate) type_number: u32,
    /// Byte of the file where it starts.
    pub(crate) start: u64,
    /// Bytes; `None` where the type is not known. Then nothing but the start was checked.
    pub(crate) bytes: Option<usize>,
}

/// A checked header.
#[derive(Debug)]
pub(crate) struct GgufHeader<'b> {
    /// Keys and values.
    pub(crate) metadata: Metadata<'b>,
    /// The tensors, in the order in which they are described.
    pub(crate) tensors: Vec<TensorClaim>,
    /// Of the tensors in the file.
    pub(crate) alignment: u64,
    /// Of the format.
    pub(crate) version: u32,
}

impl<'b> GgufHeader<'b> {
    /// Whether the bytes begin as a GGUF does.
    pub(crate) fn is_gguf(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Checks the header of a file, of which these are all bytes.
    ///
    /// # Errors
    /// [`GgufError`]: which key or tensor, what was found, what is allowed.
    pub(crate) fn parse(bytes: &'b [u8]) -> Result<Self, GgufError> {
        if !Self::is_gguf(bytes) {
            return Err(GgufPlace::Start.is(GgufProblem::Magic));
        }
        let mut cursor = Cursor::new(bytes);
        let version = version(&mut cursor)?;
        let tensor_count = cursor.u64(&GgufPlace::Start)?;
        let key_count = cursor.u64(&GgufPlace::Start)?;
        let metadata = Metadata::parse(&mut cursor, key_count)?;
        let alignment = alignment(&metadata)?;
        let mut tensors = described(&mut cursor, tensor_count)?;
        // At most 2^20 beyond bytes that are in memory.
        let data_start = (cursor.position() as u64).next_multiple_of(alignment);
        let found = bytes.len() as u64;
        for tensor in &mut tensors {
            place(tensor, alignment, data_start, found)?;
        }
        each_alone(&tensors)?;
        Ok(Self {
            metadata,
            tensors,
            alignment,
            version,
        })
    }
}

fn version(cursor: &mut Cursor<'_>) -> Result<u32, GgufError> {
    cursor.take(MAGIC.len() as u64, &GgufPlace::Start)?;
    let version = cursor.u32(&GgufPlace::Start)?;
    // No version has been that large, and a swapped one has nothing in its lower half.
    if version != 0 && version & 0xffff == 0 {
        return Err(GgufPlace::Start.is(GgufProblem::BigEndian(version)));
    }
    if !VERSIONS.contains(&version) {
        return Err(GgufPlace::Start.is(GgufProblem::Version(version)));
    }
    Ok(version)
}

fn alignment(metadata: &Metadata<'_>) -> Result<u64, GgufError> {
    let place = GgufPlace::key(ALIGNMENT_KEY);
    let Some(number) = metadata.type_number(ALIGNMENT_KEY) else {
        return Ok(ALIGNMENT.into());
    };
    let value = metadata.unsigned(ALIGNMENT_KEY);
    let value = value.and_then(|value| u32::try_from(value).ok());
    let Some(found) = value.filter(|_| number == U32_NUMBER) else {
        return Err(place.is(GgufProblem::AlignmentType(number)));
    };
    if !found.is_power_of_two() || found > ALIGNMENT_MAX {
        let most = ALIGNMENT_MAX;
        return Err(place.is(GgufProblem::Alignment { found, most }));
    }
    Ok(found.into())
}

/// The tensors' descriptions; `start` is still the offset in the data.
fn described(cursor: &mut Cursor<'_>, count: u64) -> Result<Vec<TensorClaim>, GgufError> {
    let most = TENSORS_MAX.min(cursor.left() as u64 / TENSOR_BYTES_MIN);
    let Some(expected) = usize::try_from(count).ok().filter(|_| count <= most) else {
        let what = "tensors";
        return Err(GgufPlace::Start.is(GgufProblem::Count { what, count, most }));
    };
    let mut tensors = Vec::with_capacity(expected);
    for index in 0..count {
        tensors.push(description(cursor, index)?);
    }
    let mut names: Vec<&str> = tensors.iter().map(|t: &TensorClaim| &*t.name).collect();
    names.sort_unstable();
    for pair in names.windows(2) {
        if pair[0] == pair[1] {
            return Err(GgufPlace::tensor(pair[0]).is(GgufProblem::Twice));
        }
    }
    Ok(tensors)
}

fn description(cursor: &mut Cursor<'_>, index: u64) -> Result<TensorClaim, GgufError> {
    let name = cursor.name(&GgufPlace::TensorNumber(index))?;
    let place = GgufPlace::tensor(name);
    let dimensions = cursor.u32(&place)?;
    if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
        return Err(place.is(GgufProblem::Dimensions(dimensions)));
    }
    let mut ne = Vec::with_capacity(dimensions as usize);
    for _ in 0..dimensions {
        ne.push(cursor.u64(&place)?);
    }
    let type_number = cursor.u32(&place)?;
    let offset = cursor.u64(&place)?;
    let shape = Shape::checked(&ne, type_number).map_err(|problem| place.is(problem))?;
    Ok(TensorClaim {
        name: name.to_owned(),
        ne: shape.ne,
        type_number,
        start: offset,
        bytes: shape.bytes,
    })
}

/// A tensor's dimensions that can be.
#[derive(Debug)]
pub(crate) struct Shape {
    /// The one along memory first.
    pub(crate) ne: Vec<usize>,
    /// Bytes of the tensor; `None` where the type is not known.
    pub(crate) bytes: Option<usize>,
}

impl Shape {
    /// Checks the dimensions of a tensor.
    ///
    /// # Errors
    /// [`GgufProblem::EmptyDimension`], [`GgufProblem::Overflow`], [`GgufProblem::Row`].
    pub(crate) fn checked(ne: &[u64], type_number: u32) -> Result<Self, GgufProblem> {
        if let Some(index) = ne.iter().position(|&n| n == 0) {
            return Err(GgufProblem::EmptyDimension(index));
        }
        let overflow = || GgufProblem::Overflow(ne.to_vec());
        let numbers = ne.iter().try_fold(1_u64, |all, &n| all.checked_mul(n));
        let numbers = numbers.filter(|&all| i64::try_from(all).is_ok());
        let numbers = numbers.ok_or_else(overflow)?;
        let bytes = match stored_size(type_number) {
            Some(block) => {
                let row = ne.first().copied().unwrap_or(1);
                if !row.is_multiple_of(block.len as u64) {
                    return Err(GgufProblem::Row {
                        row,
                        block: block.len,
                        type_number,
                    });
                }
                let blocks = numbers / block.len as u64;
                let bytes = blocks.checked_mul(block.bytes as u64);
                let bytes = bytes.and_then(|bytes| isize::try_from(bytes).ok());
                Some(bytes.ok_or_else(overflow)?.unsigned_abs())
            }
            None => None,
        };
        let each = ne.iter().map(|&n| usize::try_from(n).ok());
        let ne = each.collect::<Option<_>>().ok_or_else(overflow)?;
        Ok(Self { ne, bytes })
    }
}

/// Turns the offset in the data into one in the file.
fn place(
    tensor: &mut TensorClaim,
    alignment: u64,
    data_start: u64,
    found: u64,
) -> Result<(), GgufError> {
    let place = || GgufPlace::tensor(&tensor.name);
    let offset = tensor.start;
    if !offset.is_multiple_of(alignment) {
        return Err(place().is(GgufProblem::Unaligned { offset, alignment }));
    }
    let start = data_start.saturating_add(offset);
    let bytes = least_bytes(tensor);
    if start.checked_add(bytes).is_none_or(|end| end > found) {
        return Err(place().is(GgufProblem::Outside {
            start,
            bytes,
            found,
        }));
    }
    tensor.start = start;
    Ok(())
}

/// One byte at least where the type is not known.
fn least_bytes(tensor: &TensorClaim) -> u64 {
    tensor.bytes.map_or(1, |bytes| bytes as u64)
}

/// No two tensors share a byte.
fn each_alone(tensors: &[TensorClaim]) -> Result<(), GgufError> {
    let mut in_order: Vec<&TensorClaim> = tensors.iter().collect();
    in_order.sort_by_key(|tensor| tensor.start);
    for pair in in_order.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        // Checked against the file's end.
        let end = before.start + least_bytes(before);
        if after.start < end {
            return Err(GgufPlace::tensor(&after.name).is(GgufProblem::Overlap {
                start: after.start,
                other: Quoted::new(&before.name),
                end,
            }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const F32: u32 = 0;
    const Q4_0: u32 = 2;
    const UNKNOWN: u32 = 133;

    /// A tensor as a file describes it.
    struct Described {
        name: &'static [u8],
        ne: &'static [u64],
        type_number: u32,
        offset: u64,
    }

    const fn tensor(
        name: &'static str,
        ne: &'static [u64],
        type_number: u32,
        offset: u64,
    ) -> Described {
        Described {
            name: name.as_bytes(),
            ne,
            type_number,
            offset,
        }
    }

    fn string(text: &[u8]) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text].concat()
    }

    /// A file without keys, or with an alignment, and with so many bytes of data.
    fn file(alignment: Option<u32>, tensors: &[Described], data: usize) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((tensors.len() as u64).to_le_bytes());
        bytes.extend(u64::from(alignment.is_some()).to_le_bytes());
        if let Some(alignment) = alignment {
            bytes.extend(string(b"general.alignment"));
            bytes.extend(4_u32.to_le_bytes());
            bytes.extend(alignment.to_le_bytes());
        }
        for tensor in tensors {
            bytes.extend(string(tensor.name));
            bytes.extend(u32::try_from(tensor.ne.len()).unwrap().to_le_bytes());
            bytes.extend(tensor.ne.iter().flat_map(|n| n.to_le_bytes()));
            bytes.extend(tensor.type_number.to_le_bytes());
            bytes.extend(tensor.offset.to_le_bytes());
        }
        let start = bytes
            .len()
            .next_multiple_of(alignment.unwrap_or(32) as usize);
        bytes.resize(start + data, 0);
        bytes
    }

    fn said(bytes: &[u8]) -> String {
        match GgufHeader::parse(bytes) {
            Ok(header) => format!("{} tensors", header.tensors.len()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_a_header_says_of_its_tensors() {
        let bytes = file(
            Some(64),
            &[
                tensor("b", &[64, 3], Q4_0, 64),
                tensor("a", &[2, 1, 1, 5], F32, 0),
                tensor("c", &[7], UNKNOWN, 192),
            ],
            193,
        );
        for version in [2, 3] {
            let mut bytes = bytes.clone();
            bytes[4] = version;
            let header = GgufHeader::parse(&bytes).unwrap();
            assert_eq!((header.version, header.alignment), (version.into(), 64));
            assert_eq!(header.metadata.unsigned("general.alignment"), Some(64));
            let start = bytes.len() as u64 - 193;
            let claim = |name: &str, ne: &[usize], type_number, offset, bytes| TensorClaim {
                name: name.into(),
                ne: ne.into(),
                type_number,
                start: start + offset,
                bytes,
            };
            assert_eq!(
                header.tensors,
                [
                    claim("b", &[64, 3], Q4_0, 64, Some(108)),
                    claim("a", &[2, 1, 1, 5], F32, 0, Some(40)),
                    claim("c", &[7], UNKNOWN, 192, None),
                ]
            );
        }
        // Metadata alone: the file need not reach to where data would begin.
        assert_eq!(said(&file(None, &[], 0)[..24]), "0 tensors");
    }
}
