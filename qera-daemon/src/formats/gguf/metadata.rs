//! A GGUF's metadata: keys and values, borrowed from the file's bytes. Arrays are not copied, since
//! a tokenizer's arrays are most of the header.

use crate::formats::gguf::cursor::Cursor;
use crate::formats::gguf::error::{GgufError, GgufPlace, GgufProblem};

/// The most keys of a file; real files have fewer than a hundred.
pub(crate) const KEYS_MAX: u64 = 1 << 16;
/// The fewest bytes of a key: the length of its name, a character, its type, a value of one byte.
const KEY_BYTES_MIN: u64 = 14;
/// The longest array that is returned as a list: a number for each layer, or file names. A
/// tokenizer's vocabulary does not concern qera.
const LIST_MAX: usize = 1 << 20;

/// The type of a value, with the format's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueType {
    Unsigned { bytes: u64 },
    Signed { bytes: u64 },
    Float { bytes: u64 },
    Boolean,
    Text,
    Array,
}

impl ValueType {
    const fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Unsigned { bytes: 1 },
            1 => Self::Signed { bytes: 1 },
            2 => Self::Unsigned { bytes: 2 },
            3 => Self::Signed { bytes: 2 },
            4 => Self::Unsigned { bytes: 4 },
            5 => Self::Signed { bytes: 4 },
            6 => Self::Float { bytes: 4 },
            7 => Self::Boolean,
            8 => Self::Text,
            9 => Self::Array,
            10 => Self::Unsigned { bytes: 8 },
            11 => Self::Signed { bytes: 8 },
            12 => Self::Float { bytes: 8 },
            _ => return None,
        })
    }

    /// The number of bytes of a value; `None` where its length stands before it.
    const fn bytes(self) -> Option<u64> {
        match self {
            Self::Unsigned { bytes } | Self::Signed { bytes } | Self::Float { bytes } => {
                Some(bytes)
            }
            Self::Boolean => Some(1),
            Self::Text | Self::Array => None,
        }
    }
}

/// A value in the file's bytes.
#[derive(Debug, Clone, Copy)]
struct Value<'b> {
    /// The type of the value, or of an array's elements.
    of: ValueType,
    /// The length of an array; `None` for any other value.
    elements: Option<usize>,
    /// The bytes of a string, without its length; or of all elements of an array, with the lengths
    /// of strings.
    bytes: &'b [u8],
}

#[derive(Debug)]
struct MetadataEntry<'b> {
    key: &'b str,
    type_number: u32,
    value: Value<'b>,
    /// The entry's position, and all of its bytes.
    at: usize,
    bytes: &'b [u8],
}

/// A key and its value as they lie in a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredEntry<'b> {
    /// The key.
    pub(crate) key: &'b str,
    /// The bytes of both.
    pub(crate) bytes: &'b [u8],
}

/// Keys and values.
#[derive(Debug)]
pub(crate) struct Metadata<'b> {
    /// The entries, sorted by key, without repeats.
    entries: Vec<MetadataEntry<'b>>,
}

impl<'b> Metadata<'b> {
    /// Reads `count` keys with their values.
    ///
    /// # Errors
    /// [`GgufError`], which names the key.
    pub(crate) fn parse(cursor: &mut Cursor<'b>, count: u64) -> Result<Self, GgufError> {
        let most = KEYS_MAX.min(cursor.left() as u64 / KEY_BYTES_MIN);
        let Some(expected) = usize::try_from(count).ok().filter(|_| count <= most) else {
            let what = "keys";
            return Err(GgufPlace::Start.is(GgufProblem::Count { what, count, most }));
        };
        let mut entries = Vec::with_capacity(expected);
        for index in 0..count {
            let at = cursor.position();
            let key = cursor.name(&GgufPlace::Part { what: "key", index })?;
            entries.push(MetadataEntry::parse(at, key, cursor)?);
        }
        entries.sort_unstable_by_key(|entry: &MetadataEntry<'_>| entry.key);
        for pair in entries.windows(2) {
            if pair[0].key == pair[1].key {
                return Err(GgufPlace::key(pair[0].key).is(GgufProblem::Twice));
            }
        }
        Ok(Self { entries })
    }

    /// All entries in the order of the file.
    #[must_use]
    pub(crate) fn as_they_lie(&self) -> Vec<StoredEntry<'b>> {
        let mut entries: Vec<&MetadataEntry<'b>> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|entry| entry.at);
        let stored = |of: &MetadataEntry<'b>| StoredEntry {
            key: of.key,
            bytes: of.bytes,
        };
        entries.into_iter().map(stored).collect()
    }

    fn entry(&self, key: &str) -> Option<&MetadataEntry<'b>> {
        let found = self.entries.binary_search_by_key(&key, |entry| entry.key);
        found.ok().and_then(|index| self.entries.get(index))
    }

    fn scalar(&self, key: &str) -> Option<Value<'b>> {
        let value = self.entry(key)?.value;
        value.elements.is_none().then_some(value)
    }

    /// Whether the key exists, with any value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// The number of the type of the key's value, or of its elements.
    pub(crate) fn type_number(&self, key: &str) -> Option<u32> {
        self.entry(key).map(|entry| entry.type_number)
    }

    /// Whether the value is an array of u32.
    pub(crate) fn is_array_of_u32(&self, key: &str) -> bool {
        let is_array = |entry: &MetadataEntry<'_>| {
            entry.value.elements.is_some() && entry.value.of == ValueType::Unsigned { bytes: 4 }
        };
        self.entry(key).is_some_and(is_array)
    }

    /// A string; `None` where it is absent, something else, or not UTF-8.
    pub(crate) fn text(&self, key: &str) -> Option<&'b str> {
        let value = self.scalar(key)?;
        match value.of {
            ValueType::Text => core::str::from_utf8(value.bytes).ok(),
            _ => None,
        }
    }

    /// An f32; `None` where it is absent or something else, which llama.cpp asks for, too.
    pub(crate) fn float(&self, key: &str) -> Option<f32> {
        let value = self.scalar(key)?;
        match value.of {
            ValueType::Float { bytes: 4 } => {
                let bytes = value.bytes.first_chunk()?;
                Some(f32::from_le_bytes(*bytes))
            }
            _ => None,
        }
    }

    /// An integer of any width that is not negative; `None` where it is absent or something else.
    pub(crate) fn unsigned(&self, key: &str) -> Option<u64> {
        let value = self.scalar(key)?;
        unsigned(value.of, value.bytes)
    }

    /// Integers like those of [`unsigned`](Self::unsigned): a single one, or an array (one for each
    /// layer, where layers differ). `None` also for arrays longer than 2^20.
    pub(crate) fn unsigned_or_array(&self, key: &str) -> Option<Vec<u64>> {
        let value = self.entry(key)?.value;
        let width = usize::try_from(value.of.bytes()?).ok()?;
        if value.elements.is_some_and(|count| count > LIST_MAX) {
            return None;
        }
        let each = value.bytes.chunks_exact(width);
        each.map(|bytes| unsigned(value.of, bytes)).collect()
    }

    /// An array of strings; `None` where it is absent, something else, longer than 2^20, or has a
    /// string that is not UTF-8.
    pub(crate) fn texts(&self, key: &str) -> Option<Vec<&'b str>> {
        let value = self.entry(key)?.value;
        let count = value.elements.filter(|&count| count <= LIST_MAX)?;
        if value.of != ValueType::Text {
            return None;
        }
        let mut cursor = Cursor::new(value.bytes);
        let text = |_| core::str::from_utf8(cursor.string(&GgufPlace::Start).ok()?).ok();
        (0..count).map(text).collect()
    }
}

impl<'b> MetadataEntry<'b> {
    /// Reads the rest of an entry that begins at position `at`.
    fn parse(at: usize, key: &'b str, cursor: &mut Cursor<'b>) -> Result<Self, GgufError> {
        let place = GgufPlace::key(key);
        let type_number = cursor.u32(&place)?;
        let of = value_type(type_number, &place)?;
        let (type_number, value) = match of {
            ValueType::Array => {
                let of = cursor.u32(&place)?;
                (of, array(value_type(of, &place)?, cursor, &place)?)
            }
            _ => (type_number, scalar(of, cursor, &place)?),
        };
        Ok(Self {
            key,
            type_number,
            value,
            at,
            bytes: cursor.since(at),
        })
    }
}

fn value_type(number: u32, place: &GgufPlace) -> Result<ValueType, GgufError> {
    ValueType::of(number).ok_or_else(|| place.is(GgufProblem::ValueType(number)))
}

fn scalar<'b>(
    of: ValueType,
    cursor: &mut Cursor<'b>,
    place: &GgufPlace,
) -> Result<Value<'b>, GgufError> {
    let bytes = match of.bytes() {
        Some(count) => cursor.take(count, place)?,
        None => cursor.string(place)?,
    };
    if let (ValueType::Boolean, &[byte]) = (of, bytes)
        && byte > 1
    {
        return Err(place.is(GgufProblem::Boolean(byte)));
    }
    Ok(Value {
        of,
        elements: None,
        bytes,
    })
}

fn array<'b>(
    of: ValueType,
    cursor: &mut Cursor<'b>,
    place: &GgufPlace,
) -> Result<Value<'b>, GgufError> {
    if of == ValueType::Array {
        return Err(place.is(GgufProblem::Nested));
    }
    let count = cursor.u64(place)?;
    let most = cursor.left() as u64 / of.bytes().unwrap_or(8);
    let what = "elements";
    let Some(elements) = usize::try_from(count).ok().filter(|_| count <= most) else {
        return Err(place.is(GgufProblem::Count { what, count, most }));
    };
    let mut measured = cursor.clone();
    match of.bytes() {
        Some(width) => {
            measured.take(count.saturating_mul(width), place)?;
        }
        None => {
            for _ in 0..count {
                measured.string(place)?;
            }
        }
    }
    let length = measured.position() - cursor.position();
    Ok(Value {
        of,
        elements: Some(elements),
        bytes: cursor.take(length as u64, place)?,
    })
}

/// An integer, if it is not negative.
fn unsigned(of: ValueType, bytes: &[u8]) -> Option<u64> {
    let mut wide = [0; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let negative = bytes.last()? & 0x80 != 0;
    match of {
        ValueType::Unsigned { .. } => Some(u64::from_le_bytes(wide)),
        ValueType::Signed { .. } if !negative => Some(u64::from_le_bytes(wide)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &[u8]) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text].concat()
    }

    /// A key with a value of this type.
    fn entry(key: &str, type_number: u32, value: &[u8]) -> Vec<u8> {
        [
            &string(key.as_bytes())[..],
            &type_number.to_le_bytes(),
            value,
        ]
        .concat()
    }

    fn array_of(type_number: u32, count: u64, elements: &[u8]) -> Vec<u8> {
        [
            &type_number.to_le_bytes()[..],
            &count.to_le_bytes(),
            elements,
        ]
        .concat()
    }

    fn parse(entries: &[Vec<u8>]) -> String {
        let bytes = entries.concat();
        match Metadata::parse(&mut Cursor::new(&bytes), entries.len() as u64) {
            Ok(metadata) => format!("{} keys", metadata.entries.len()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn values_are_read_by_their_types_and_are_absent_as_others() {
        let strings = [string(b"a"), string(b""), string("ä".as_bytes())].concat();
        let entries = [
            entry("text", 8, &string("naïve\n".as_bytes())),
            entry("u8", 0, &[200]),
            entry("i8", 1, &[200]),
            entry("u16", 2, &[1, 2]),
            entry("i16", 3, &[1, 2]),
            entry("u32", 4, &u32::MAX.to_le_bytes()),
            entry("i32", 5, &(-1_i32).to_le_bytes()),
            entry("f32", 6, &0.5_f32.to_le_bytes()),
            entry("yes", 7, &[1]),
            entry("no", 7, &[0]),
            entry("u64", 10, &u64::MAX.to_le_bytes()),
            entry("i64", 11, &i64::MAX.to_le_bytes()),
            entry("f64", 12, &0.1_f64.to_le_bytes()),
            entry("heads", 9, &array_of(5, 2, &[3, 0, 0, 0, 4, 0, 0, 0])),
            entry("some", 9, &array_of(1, 2, &[3, 255])),
            entry("none", 9, &array_of(4, 0, &[])),
            entry("texts", 9, &array_of(8, 3, &strings)),
            entry("bytes", 9, &array_of(8, 1, &string(&[255]))),
        ];
        let bytes = entries.concat();
        let read = Metadata::parse(&mut Cursor::new(&bytes), entries.len() as u64).unwrap();
        assert_eq!(read.text("text"), Some("naïve\n"));
        let unsigned = |key| read.unsigned(key);
        assert_eq!(unsigned("u8"), Some(200));
        assert_eq!(unsigned("i8"), None);
        assert_eq!(unsigned("u16"), Some(0x201));
        assert_eq!(unsigned("i16"), Some(0x201));
        assert_eq!(unsigned("u32"), Some(u32::MAX.into()));
        assert_eq!(unsigned("i32"), None);
        assert_eq!(unsigned("u64"), Some(u64::MAX));
        assert_eq!(unsigned("i64"), Some(i64::MAX.unsigned_abs()));
        for key in ["f32", "f64", "yes", "no"] {
            assert!(read.has(key) && unsigned(key).is_none(), "{key}");
        }
        assert_eq!(read.float("f32"), Some(0.5));
        for key in ["absent", "f64", "u32", "text", "heads"] {
            assert_eq!(read.float(key), None, "{key}");
        }
        assert_eq!(read.unsigned_or_array("heads"), Some(vec![3, 4]));
        assert_eq!(read.unsigned_or_array("u8"), Some(vec![200]));
        assert_eq!(read.unsigned_or_array("none"), Some(vec![]));
        assert_eq!(read.unsigned_or_array("some"), None);
        assert_eq!(read.texts("texts"), Some(vec!["a", "", "ä"]));
        assert_eq!(read.texts("bytes"), None);
        for key in ["absent", "texts", "heads", "none"] {
            assert_eq!(read.has(key), key != "absent");
            assert!(read.text(key).is_none() && unsigned(key).is_none(), "{key}");
        }
        for key in ["none", "heads", "u32", "texts", "absent"] {
            assert_eq!(read.is_array_of_u32(key), key == "none", "{key}");
        }
        for key in ["text", "u8", "heads", "absent"] {
            assert!(read.texts(key).is_none(), "{key}");
        }
        for key in ["text", "f32", "texts"] {
            assert!(read.unsigned_or_array(key).is_none(), "{key}");
        }
        let stored = read.as_they_lie();
        assert_eq!((stored[0].key, stored[17].key), ("text", "bytes"));
        assert!(stored.iter().map(|of| of.bytes).eq(&entries));
    }

    #[test]
    fn every_lie_is_named_with_its_key() {
        assert_eq!(parse(&[entry("a", 0, &[1])]), "1 keys");
        let cases = [
            (entry("a", 13, &[1]), "key 'a': its value has type 13"),
            (entry("a", 7, &[2]), "key 'a': its value 2 is no boolean"),
            (entry("a", 10, &[1; 7]), "key 'a': truncated at byte 13: 8"),
            (
                entry("a", 8, &u64::MAX.to_le_bytes()),
                "18446744073709551615 bytes are announced, 0 are left",
            ),
            (
                entry("a", 9, &array_of(9, 1, &array_of(0, 1, &[1]))),
                "key 'a': it is an array of arrays",
            ),
            (
                entry("a", 9, &array_of(13, 1, &[1])),
                "key 'a': its value has type 13",
            ),
            (
                entry("a", 9, &array_of(4, 3, &[0; 11])),
                "key 'a': 3 elements are announced; 2 are the most",
            ),
            (
                entry("a", 9, &array_of(8, u64::MAX, &[0; 16])),
                "key 'a': 18446744073709551615 elements are announced; 2 are",
            ),
            (
                entry(
                    "a",
                    9,
                    &array_of(8, 2, &[1, 0, 0, 0, 0, 0, 0, 0, 7, 8, 9, 9, 9, 9, 9, 9]),
                ),
                "key 'a': truncated at byte 34: 8 bytes are announced, 7 are left",
            ),
            (
                entry("", 0, &[1, 2]),
                "key 0 (counted from 0): its name has 0 bytes",
            ),
            (
                entry(&"k".repeat(65_536), 0, &[1]),
                "its name has 65536 bytes; 1 to 65535 are allowed",
            ),
            (
                entry("a\u{7f}", 0, &[1]),
                "its name holds the control character U+007F",
            ),
            (
                [&string(&[b'a', 0xff])[..], &[0; 4], &[1]].concat(),
                "its name is not UTF-8 from byte 1 on",
            ),
        ];
        for (bytes, said) in cases {
            let message = parse(core::slice::from_ref(&bytes));
            assert!(message.contains(said), "{said}: {message}");
        }
        let twice = [
            entry("b", 0, &[1]),
            entry("a", 0, &[1]),
            entry("b", 0, &[2]),
        ];
        assert_eq!(parse(&twice), "key 'b': it comes twice");
        let many = Metadata::parse(&mut Cursor::new(&[0; 30]), 3).unwrap_err();
        assert_eq!(
            many.to_string(),
            "GGUF header: 3 keys are announced; 2 are the most that are possible here"
        );
    }
}
