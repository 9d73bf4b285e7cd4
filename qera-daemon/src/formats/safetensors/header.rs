//! A safetensors header, from bytes that may be truncated, lying, or no safetensors at all.
//!
//! Format (safetensors README, "Format"): u64 little-endian header length, that many bytes of JSON,
//! then the tensors' bytes without gaps. Every number is checked before it is used: shape times
//! dtype gives each length, offsets tile the data, and the data ends where the file does. The
//! crate's own parser checks the same, but does not say which tensor is wrong.

use core::fmt;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use half::{bf16, f16};
use qera_core::dtype::FloatDtype;
use safetensors::Dtype;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The largest header that is accepted, as in the safetensors crate.
const HEADER_BYTES_MAX: u64 = 100_000_000;
/// The number of bytes of the length before the JSON.
const LENGTH: usize = 8;
const METADATA: &str = "__metadata__";

/// A tensor as the header describes it, checked against the file.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    /// Key.
    pub(crate) key: String,
    /// Element type.
    pub(crate) dtype: Dtype,
    /// Shape, row-major.
    pub(crate) shape: Vec<usize>,
    /// The position in the file where it starts.
    pub(crate) start: u64,
    /// The number of its bytes.
    pub(crate) bytes: usize,
}

/// A checked header.
#[derive(Debug)]
pub(crate) struct Header {
    /// The tensors, in the order of their bytes.
    pub(crate) claims: Vec<Claim>,
    /// `__metadata__`.
    pub(crate) metadata: HashMap<String, String>,
}

/// Why a file is no complete safetensors file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum HeaderError {
    /// Reading failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Not even the length field fits.
    #[error("truncated: {found} bytes, a safetensors file has at least 8")]
    NoLength {
        /// The file's length.
        found: u64,
    },
    /// The first eight bytes are no plausible length.
    #[error(
        "not a safetensors file, or truncated in its header: its first 8 bytes announce {claimed} bytes of header, the file has {found}"
    )]
    Length {
        /// The header's length that the file claims.
        claimed: u64,
        /// The file's length.
        found: u64,
    },
    /// The header is not the JSON that the format asks for.
    #[error("not a valid safetensors header: {0}")]
    Json(String),
    /// A type that the format does not know.
    #[error("tensor '{key}' has the unknown dtype '{dtype}'")]
    UnknownDtype {
        /// Tensor.
        key: String,
        /// The type that the header names.
        dtype: String,
    },
    /// Shape and type do not give the length that the offsets give.
    #[error("tensor '{key}': {dtype} {shape:?} does not fill its {bytes} bytes")]
    Size {
        /// Tensor.
        key: String,
        /// The tensor's type.
        dtype: String,
        /// The tensor's shape.
        shape: Vec<usize>,
        /// The bytes between its offsets; 0 where these are reversed.
        bytes: u64,
    },
    /// Tensors overlap or leave a gap.
    #[error("tensor '{key}' starts at byte {start} of the data; {expected} expected")]
    Offset {
        /// Tensor.
        key: String,
        /// The tensor's offset.
        start: u64,
        /// The end of the tensor before it.
        expected: u64,
    },
    /// The data is shorter or longer than the header says.
    #[error("{}: the header describes {expected} bytes, the file has {found} (last tensor '{key}')", if found < expected { "truncated" } else { "trailing bytes" })]
    DataLength {
        /// The tensor that ends last.
        key: String,
        /// The file's length by the header.
        expected: u64,
        /// The file's length.
        found: u64,
    },
}

/// The header's object. It is borrowed, so that a header of many megabytes is not copied into a
/// tree of values, and a key that occurs twice is an error.
struct Entries<'a>(BTreeMap<String, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = BTreeMap<String, &'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
                    if entries.contains_key(&key) {
                        return Err(A::Error::custom(format!("the key '{key}' comes twice")));
                    }
                    entries.insert(key, value);
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(Once).map(Self)
    }
}

#[derive(Deserialize)]
struct Described {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl Header {
    /// Reads and checks the header of a file of this length, without reading the data.
    ///
    /// # Errors
    /// [`HeaderError`], one variant for each way in which the file is not what it should be.
    pub(crate) fn read(mut file: impl Read, found: u64) -> Result<Self, HeaderError> {
        let mut bytes = vec![0; LENGTH];
        if found < LENGTH as u64 {
            return Err(HeaderError::NoLength { found });
        }
        file.read_exact(&mut bytes)?;
        let claimed = json_length(&bytes, found)?;
        file.take(claimed).read_to_end(&mut bytes)?;
        Self::parse(&bytes, found)
    }

    /// Checks a header; `bytes` are the beginning of a file of `found` bytes, at least up to the
    /// end of the header.
    ///
    /// # Errors
    /// The header is invalid, as for [`read`](Self::read).
    pub(crate) fn parse(bytes: &[u8], found: u64) -> Result<Self, HeaderError> {
        let claimed = json_length(bytes, found)?;
        let end = usize::try_from(claimed).map_or(usize::MAX, |n| n.saturating_add(LENGTH));
        let json = bytes.get(LENGTH..end).ok_or(HeaderError::Length {
            claimed,
            found: bytes.len() as u64,
        })?;
        Self::parse_json(json, claimed + LENGTH as u64, found)
    }

    fn parse_json(json: &[u8], data_start: u64, found: u64) -> Result<Self, HeaderError> {
        let invalid = |e: serde_json::Error| HeaderError::Json(e.to_string());
        let entries: Entries<'_> = serde_json::from_slice(json).map_err(invalid)?;
        let mut entries = entries.0;
        let metadata = entries
            .remove(METADATA)
            .map_or(Ok(HashMap::new()), |raw| serde_json::from_str(raw.get()))
            .map_err(|e| HeaderError::Json(format!("{METADATA}: {e}")))?;
        let mut tensors = Vec::new();
        for (key, raw) in entries {
            let described: Described = serde_json::from_str(raw.get())
                .map_err(|e| HeaderError::Json(format!("tensor '{key}': {e}")))?;
            tensors.push((key, described));
        }
        tensors.sort_by_key(|(_, described)| described.data_offsets);
        let mut end = 0;
        let mut claims = Vec::new();
        for (key, described) in tensors {
            let claim = described.check(key, end, data_start)?;
            end += claim.bytes as u64;
            claims.push(claim);
        }
        let expected = data_start.saturating_add(end);
        if expected != found {
            let key = claims.last().map(|c| c.key.clone()).unwrap_or_default();
            return Err(HeaderError::DataLength {
                key,
                expected,
                found,
            });
        }
        Ok(Self { claims, metadata })
    }
}

/// The length of the JSON, as announced by the first bytes of a file of `found` bytes.
fn json_length(bytes: &[u8], found: u64) -> Result<u64, HeaderError> {
    let Some(length) = bytes.first_chunk() else {
        return Err(HeaderError::NoLength { found });
    };
    let claimed = u64::from_le_bytes(*length);
    if claimed > HEADER_BYTES_MAX || claimed > found.saturating_sub(LENGTH as u64) {
        return Err(HeaderError::Length { claimed, found });
    }
    Ok(claimed)
}

impl Described {
    /// Checks type, length and place; `end` is where the tensor before ends.
    fn check(self, key: String, end: u64, data_start: u64) -> Result<Claim, HeaderError> {
        let Self {
            dtype: name,
            shape,
            data_offsets: (from, to),
        } = self;
        let Ok(dtype) = serde_json::from_value::<Dtype>(serde_json::Value::String(name.clone()))
        else {
            return Err(HeaderError::UnknownDtype { key, dtype: name });
        };
        let bits = shape
            .iter()
            .try_fold(dtype.bitsize(), |bits, &n| bits.checked_mul(n));
        let length = to.saturating_sub(from);
        match bits
            .filter(|bits| bits.is_multiple_of(8))
            .map(|bits| bits / 8)
        {
            Some(bytes) if bytes as u64 == length && from <= to => {
                if from != end {
                    return Err(HeaderError::Offset {
                        key,
                        start: from,
                        expected: end,
                    });
                }
                Ok(Claim {
                    key,
                    dtype,
                    shape,
                    start: data_start.saturating_add(from),
                    bytes,
                })
            }
            _ => Err(HeaderError::Size {
                key,
                dtype: name,
                shape,
                bytes: length,
            }),
        }
    }
}

/// The float type of a tensor, if qera decodes it.
#[must_use]
pub(crate) const fn float_dtype(dtype: Dtype) -> Option<FloatDtype> {
    match dtype {
        Dtype::F32 => Some(FloatDtype::F32),
        Dtype::F16 => Some(FloatDtype::F16),
        Dtype::BF16 => Some(FloatDtype::Bf16),
        _ => None,
    }
}

/// The type's name in a safetensors header.
#[must_use]
pub(crate) const fn dtype_name(dtype: FloatDtype) -> Dtype {
    match dtype {
        FloatDtype::F32 => Dtype::F32,
        FloatDtype::F16 => Dtype::F16,
        FloatDtype::Bf16 => Dtype::BF16,
    }
}

/// Whether each of these values is exact in this type, so that [`encode`] loses nothing.
pub(crate) fn are_exact(values: &[f32], dtype: FloatDtype) -> bool {
    match dtype {
        FloatDtype::F32 => true,
        FloatDtype::F16 => {
            let exact = |v: &f32| f16::from_f32(*v).to_f32().to_bits() == v.to_bits();
            values.iter().all(exact)
        }
        // A bf16 number is the upper half of an f32 number.
        FloatDtype::Bf16 => values.iter().fold(0, |bits, v| bits | v.to_bits()) & 0xffff == 0,
    }
}

/// The little-endian bytes of values that are already rounded to `dtype`.
pub(crate) fn encode(values: &[f32], dtype: FloatDtype) -> Vec<u8> {
    match dtype {
        FloatDtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        FloatDtype::F16 => values
            .iter()
            .flat_map(|v| f16::from_f32(*v).to_le_bytes())
            .collect(),
        FloatDtype::Bf16 => values
            .iter()
            .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str, data: u64) -> String {
        match Header::parse_json(json.as_bytes(), 100, 100 + data) {
            Ok(header) => format!("{} tensors", header.claims.len()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn exact_is_what_reads_back() {
        let smallest_f16 = 2_f32.powi(-24);
        for (value, f16, bf16) in [
            (1.0, true, true),
            (-127.0 * 2_f32.powi(-126), false, true),
            (65504.0, true, false),
            (65536.0, false, true),
            (smallest_f16, true, true),
            (smallest_f16 / 2.0, false, true),
            (1.0 + 1.0 / 1024.0, true, false),
            (1.0 + 1.0 / 2048.0, false, false),
            (0.1, false, false),
        ] {
            // The last of many values counts as much as the first.
            let values = [[1.0; 40].as_slice(), &[value]].concat();
            for (dtype, expected) in [
                (FloatDtype::F32, true),
                (FloatDtype::F16, f16),
                (FloatDtype::Bf16, bf16),
            ] {
                assert_eq!(are_exact(&values, dtype), expected, "{value} {dtype:?}");
                let mut back = vec![0.0; values.len()];
                qera_core::dtype::widen(&encode(&values, dtype), dtype, &mut back);
                assert_eq!(back == values, expected, "{value} {dtype:?}");
            }
        }
    }

    #[test]
    fn every_lie_is_named() {
        let tensor = |dtype: &str, shape: &str, from: u64, to: u64| {
            format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
        };
        let one = |t: String| format!(r#"{{"a":{t}}}"#);
        assert_eq!(parse(&one(tensor("F32", "[2]", 0, 8)), 8), "1 tensors");
        assert_eq!(parse("{}", 0), "0 tensors");
        let cases = [
            (one(tensor("F32", "[3]", 0, 8)), "'a'"),
            (one(tensor("F32", "[2]", 8, 0)), "'a'"),
            (one(tensor("F32", "[2]", 4, 12)), "starts at byte 4"),
            (one(tensor("F31", "[2]", 0, 8)), "'F31'"),
            (one(tensor("F32", "[18446744073709551615, 2]", 0, 8)), "'a'"),
            (
                one(tensor("F32", "[2]", 0, 8)).replace("shape", "shapes"),
                "shape",
            ),
            (
                format!(
                    r#"{{"a":{},"b":{}}}"#,
                    tensor("U8", "[8]", 0, 8),
                    tensor("U8", "[8]", 4, 12)
                ),
                "'b'",
            ),
            ("[]".into(), "header"),
            (
                format!(r#"{{"a":{0},"a":{0}}}"#, tensor("U8", "[8]", 0, 8)),
                "'a' comes twice",
            ),
            (r#"{"__metadata__":{"k":1}}"#.into(), "__metadata__"),
        ];
        for (json, said) in cases {
            let message = parse(&json, 8);
            assert!(message.contains(said), "{json}: {message}");
        }
        let short = parse(&one(tensor("F32", "[2]", 0, 8)), 7);
        assert!(
            short.contains("truncated") && short.contains("108") && short.contains("107"),
            "{short}"
        );
        assert!(parse(&one(tensor("F32", "[2]", 0, 8)), 9).contains("trailing"));
    }

    #[test]
    fn a_header_is_read_and_parsed_alike_however_it_is_cut() {
        let json = br#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#;
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend(json);
        file.extend([7; 3]);
        let found = file.len() as u64;
        let header = Header::parse(&file, found).unwrap();
        assert_eq!(header.claims[0].start + 3, found);
        for cut in 0..file.len() {
            let length = cut as u64;
            let parsed = Header::parse(&file[..cut], length).unwrap_err();
            let read = Header::read(&file[..cut], length).unwrap_err();
            assert_eq!(parsed.to_string(), read.to_string(), "{cut}");
            // The file was longer when its length was asked for.
            let header_is_whole = cut >= file.len() - 3;
            assert_eq!(Header::parse(&file[..cut], found).is_ok(), header_is_whole);
            assert_eq!(Header::read(&file[..cut], found).is_ok(), header_is_whole);
        }
    }
}
