//! A GGUF header, from bytes that may be truncated, lying, or no GGUF at all.
//!
//! Format (gguf.md of ggml; versions 2 and 3 lie alike): "GGUF", u32 version, u64 tensors, u64
//! keys; the keys ([`Metadata`]); of each tensor its name, u32 dimensions, u64 each of them with
//! the one along memory first, u32 type, u64 offset from the start of the data; zeros up to a
//! multiple of the alignment; the data. Everything is little-endian.
//!
//! Every number is checked before it is used. Tensors may lie in any order and may leave gaps, but
//! must not share bytes. The memory for a header is bounded by the file's bytes: names and
//! dimensions are no longer than there, arrays are not copied, and everything else stays under 64
//! MiB by [`TENSORS_MAX`] and similar limits.

use crate::formats::gguf::cursor::Cursor;
use crate::formats::gguf::error::{GgufError, GgufPlace, GgufProblem, Quoted};
use crate::formats::gguf::metadata::Metadata;
use crate::formats::gguf::shape::Shape;

/// The first bytes of a GGUF.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
/// Versions that are read.
const VERSIONS: core::ops::RangeInclusive<u32> = 2..=3;
/// The most tensors of a file; a model in which every expert is a tensor of its own has 70,000.
const TENSORS_MAX: u64 = 1 << 18;
/// The fewest bytes of a tensor's description: the length of its name, a character, the number of
/// dimensions, one dimension, type, offset.
const TENSOR_BYTES_MIN: u64 = 33;
/// The key of the alignment, its default, and the largest value that is read.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";
pub(crate) const ALIGNMENT: u32 = 32;
const ALIGNMENT_MAX: u32 = 1 << 20;
/// The number of u32 among the types of values.
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
    /// The position in the file where it starts.
    pub(crate) start: u64,
    /// The number of its bytes; `None` where the type is unknown. Then only the start was checked.
    pub(crate) bytes: Option<usize>,
}

/// A checked header.
#[derive(Debug)]
pub(crate) struct GgufHeader<'b> {
    /// Keys and values.
    pub(crate) metadata: Metadata<'b>,
    /// The tensors, in the order in which they are described.
    pub(crate) tensors: Vec<TensorClaim>,
    /// The alignment of the tensors in the file.
    pub(crate) alignment: u64,
    /// The version of the format.
    pub(crate) version: u32,
    /// The header's length. The data begins at the next multiple of the alignment.
    length: u64,
}

impl<'b> GgufHeader<'b> {
    /// Whether the bytes begin as a GGUF does.
    pub(crate) fn is_gguf(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Checks the header of a file; `bytes` are the whole file.
    ///
    /// # Errors
    /// [`GgufError`] with the key or tensor, what was found, and what is allowed.
    pub(crate) fn parse(bytes: &'b [u8]) -> Result<Self, GgufError> {
        let mut header = Self::parse_without_data(bytes)?;
        let found = bytes.len() as u64;
        for tensor in &mut header.tensors {
            let data_start = header.length.next_multiple_of(header.alignment);
            place(tensor, header.alignment, data_start, found)?;
        }
        each_alone(&header.tensors)?;
        Ok(header)
    }

    /// Checks a header, except for where it says that tensors lie: the `start` of each is its
    /// offset in the data.
    ///
    /// # Errors
    /// The header is invalid, as for [`parse`](Self::parse).
    pub(crate) fn parse_without_data(bytes: &'b [u8]) -> Result<Self, GgufError> {
        if !Self::is_gguf(bytes) {
            return Err(GgufPlace::Start.is(GgufProblem::Magic));
        }
        let mut cursor = Cursor::new(bytes);
        let version = version(&mut cursor)?;
        let tensor_count = cursor.u64(&GgufPlace::Start)?;
        let key_count = cursor.u64(&GgufPlace::Start)?;
        let metadata = Metadata::parse(&mut cursor, key_count)?;
        let alignment = alignment(&metadata)?;
        let tensors = described(&mut cursor, tensor_count)?;
        Ok(Self {
            metadata,
            tensors,
            alignment,
            version,
            length: cursor.position() as u64,
        })
    }
}

fn version(cursor: &mut Cursor<'_>) -> Result<u32, GgufError> {
    cursor.take(MAGIC.len() as u64, &GgufPlace::Start)?;
    let version = cursor.u32(&GgufPlace::Start)?;
    // No version has ever been that large, and a swapped one has zeros in its lower half.
    if version != 0 && version & 0xffff == 0 {
        return Err(GgufPlace::Start.is(GgufProblem::BigEndian(version)));
    }
    if !VERSIONS.contains(&version) {
        return Err(GgufPlace::Start.is(GgufProblem::Version(version)));
    }
    Ok(version)
}

/// The alignment of a file with these keys.
///
/// # Errors
/// The file states an alignment that GGUF does not allow.
pub(crate) fn alignment(metadata: &Metadata<'_>) -> Result<u64, GgufError> {
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

/// The descriptions of tensors; `start` is still the offset in the data.
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
    let what = "tensor";
    let name = cursor.name(&GgufPlace::Part { what, index })?;
    let place = GgufPlace::tensor(name);
    let dimensions = cursor.u32(&place)?;
    Shape::check_count(dimensions).map_err(|problem| place.is(problem))?;
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

/// Turns the offset in the data into a position in the file.
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

/// How many bytes a tensor takes; at least one where the size of its type is unknown.
fn least_bytes(tensor: &TensorClaim) -> u64 {
    tensor.bytes.map_or(1, |bytes| bytes as u64)
}

/// Checks that no two tensors share a byte.
fn each_alone(tensors: &[TensorClaim]) -> Result<(), GgufError> {
    let mut in_order: Vec<&TensorClaim> = tensors.iter().collect();
    in_order.sort_by_key(|tensor| tensor.start);
    for pair in in_order.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        // The end was checked against the end of the file.
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

    /// A file without keys, or with an alignment, and with this many bytes of data.
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
            .next_multiple_of(alignment.unwrap_or(32).max(1) as usize);
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
        // The file has metadata alone, and need not reach to where data would begin.
        assert_eq!(said(&file(None, &[], 0)[..24]), "0 tensors");
    }

    fn one(tensor: Described, data: usize) -> Vec<u8> {
        file(None, &[tensor], data)
    }

    /// A valid file of one tensor, with one byte changed.
    fn with_byte(at: usize, byte: u8) -> Vec<u8> {
        let mut bytes = one(tensor("a", &[2], F32, 0), 8);
        bytes[at] = byte;
        bytes
    }

    fn assert_refused(cases: &[(Vec<u8>, &str)]) {
        for (bytes, expected) in cases {
            let message = said(bytes);
            assert!(message.contains(expected), "{expected}: {message}");
        }
    }

    #[test]
    fn a_start_that_lies_is_named() {
        let magic = "does not begin with \"GGUF\"";
        let big_endian = "big-endian (its version reads as 0x03000000)";
        assert_refused(&[
            (b"GGU".to_vec(), magic),
            (with_byte(0, b'g'), magic),
            (
                b"GGUF\x03\0\0".to_vec(),
                "4 bytes are announced, 3 are left",
            ),
            (with_byte(4, 1), "GGUF header: version 1; versions 2 and 3"),
            (with_byte(4, 4), "GGUF header: version 4; versions"),
            (with_byte(4, 0), "GGUF header: version 0; versions"),
            (b"GGUF\0\0\0\x03".to_vec(), big_endian),
            (with_byte(4, 3)[..23].to_vec(), "truncated at byte 16"),
            (with_byte(8, 2), "2 tensors are announced; 1 are the most"),
            (with_byte(15, 255), "18374686479671623681 tensors are"),
            (with_byte(16, 8), "GGUF header: 8 keys are announced; 3 are"),
            (with_byte(23, 255), "18374686479671623680 keys are"),
        ]);
    }

    #[test]
    fn a_name_that_lies_is_named() {
        let [first, second] = [0, 32].map(|offset| tensor("a", &[2], F32, offset));
        assert_refused(&[
            (
                with_byte(24, 0),
                "tensor 0 (counted from 0): its name has 0 bytes",
            ),
            (with_byte(31, 1), "has 72057594037927937 bytes; 1 to 65535"),
            (with_byte(24, 200), "truncated at byte 32: 200 bytes"),
            (with_byte(32, 0xff), "its name is not UTF-8 from byte 0 on"),
            (
                with_byte(32, 27),
                "its name holds the control character U+001B",
            ),
            (
                file(None, &[first, second], 64),
                "tensor 'a': it comes twice",
            ),
        ]);
    }

    #[test]
    fn dimensions_that_lie_are_named() {
        let of = |ne: &'static [u64], type_number| one(tensor("a", ne, type_number, 0), 64);
        let rows =
            "tensor 'a': rows of 48 numbers are no whole number of blocks of 32, in which type 2";
        assert_refused(&[
            (of(&[], F32), "tensor 'a': 0 dimensions; 1 to 4"),
            (of(&[1; 5], F32), "tensor 'a': 5 dimensions; 1 to 4"),
            (of(&[2, 0], F32), "tensor 'a': dimension 1 is 0"),
            (
                of(&[1 << 63], UNKNOWN),
                "dimensions [9223372036854775808] are more",
            ),
            (
                of(&[1 << 32, 1 << 32], F32),
                "dimensions [4294967296, 4294967296] are",
            ),
            (
                of(&[1 << 62], F32),
                "dimensions [4611686018427387904] are more",
            ),
            (of(&[48, 2], Q4_0), rows),
        ]);
    }

    #[test]
    fn a_place_that_lies_is_named() {
        let at = |type_number, offset, data| one(tensor("a", &[2], type_number, offset), data);
        let two = |first, second| file(None, &[first, second], 128);
        let long = |name, offset| tensor(name, &[9], F32, offset);
        let short = |name, offset| tensor(name, &[2], F32, offset);
        let past = "8 bytes from byte 64 on reach past the end of the file, which has 71";
        assert_refused(&[
            (
                at(F32, 16, 32),
                "its offset 16 is no multiple of the alignment 32",
            ),
            (at(F32, 0, 7), past),
            (at(F32, 1 << 40, 8), "8 bytes from byte 1099511627840 on"),
            (
                at(F32, u64::MAX - 31, 8),
                "from byte 18446744073709551615 on",
            ),
            (at(UNKNOWN, 32, 32), "1 bytes from byte 96 on reach past"),
            (
                two(long("a", 0), short("b", 32)),
                "tensor 'b': begins at byte 128, before tensor 'a' ends at byte 132",
            ),
            (
                two(short("a", 32), long("b", 0)),
                "tensor 'a': begins at byte 128, before tensor 'b' ends at byte 132",
            ),
            (
                two(short("a", 0), tensor("b", &[2], UNKNOWN, 0)),
                "before tensor",
            ),
        ]);
    }

    #[test]
    fn an_alignment_that_is_none_is_named() {
        let mut of_i32 = file(Some(32), &[], 0);
        of_i32[24 + 8 + ALIGNMENT_KEY.len()] = 5;
        let none = "key 'general.alignment': 0 is no alignment: a power of two, at most 1048576";
        let typed = "its value has type 5; an alignment is a u32, type 4";
        assert_refused(&[
            (file(Some(0), &[], 0), none),
            (
                file(Some(48), &[], 0),
                "'general.alignment': 48 is no alignment",
            ),
            (file(Some(1 << 21), &[], 0), "2097152 is no alignment"),
            (of_i32, typed),
        ]);
    }

    #[test]
    fn a_file_that_is_cut_is_refused_wherever() {
        let sound = with_byte(4, 3);
        assert_eq!(said(&sound), "1 tensors");
        for cut in 0..sound.len() {
            assert!(GgufHeader::parse(&sound[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn more_tensors_than_any_model_has_are_refused_however_long_the_file_is() {
        let mut bytes = file(None, &[], 0);
        bytes[8..16].copy_from_slice(&(TENSORS_MAX + 1).to_le_bytes());
        bytes.resize(24 + 33 * (1 << 19), 0);
        assert_eq!(
            said(&bytes),
            "GGUF header: 262145 tensors are announced; 262144 are the most that are possible here"
        );
    }

    #[test]
    fn a_long_name_is_shortened_in_what_is_said() {
        let name: &'static str = "ä".repeat(30_000).leak();
        let message = said(&file(None, &[tensor(name, &[0], F32, 0)], 0));
        assert!(
            message.ends_with("ä…': dimension 0 is 0; 1 is the least"),
            "{message}"
        );
        assert!(message.chars().count() < 200);
    }
}
