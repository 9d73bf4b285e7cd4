//! The older .dat, all little-endian: i32 number of weights; for each weight an i32 length of its
//! name, the name, i32 chunks, i32 number of values, and the values in f32; then i32 chunks of the
//! run, i32 length of its text's name, and that name. Older files end before one of the last
//! fields.
//!
//! Values are mean squares times the weight's chunks. Experts share one count, and an expert that
//! saw nothing has means of 1, which no reader can tell from measured ones.

use std::collections::BTreeMap;

use crate::formats::gguf::cursor::{Cursor, NAME_MAX, sound_name};
use crate::formats::gguf::error::{GgufError, GgufPlace, GgufProblem, Quoted};
use crate::formats::imatrix::error::ImatrixError;
use crate::formats::imatrix::numbers::Allowed;
use crate::formats::imatrix::{CountUnit, Imatrix, ImatrixEntry};

pub(super) fn parse(bytes: &[u8]) -> Result<Imatrix, ImatrixError> {
    let mut cursor = Cursor::new(bytes);
    let announced = i32(&mut cursor, &GgufPlace::Start)?;
    let Some(count) = u64::try_from(announced).ok().filter(|&count| count > 0) else {
        return Err(ImatrixError::Neither(announced));
    };
    let mut entries = BTreeMap::new();
    for index in 0..count {
        let Weight { name, entry } = weight(&mut cursor, index)?;
        if entries.insert(name.to_owned(), entry).is_some() {
            return Err(ImatrixError::Twice(Quoted::new(name)));
        }
    }
    let trailer = trailer(&mut cursor)?;
    Ok(Imatrix {
        entries,
        unit: CountUnit::Chunks,
        datasets: trailer.datasets,
        chunks: trailer.chunks,
        chunk_size: 0,
    })
}

fn i32(cursor: &mut Cursor<'_>, place: &GgufPlace) -> Result<i32, GgufError> {
    Ok(i32::from_le_bytes(cursor.array(place)?))
}

struct Weight<'b> {
    name: &'b str,
    entry: ImatrixEntry,
}

fn weight<'b>(cursor: &mut Cursor<'b>, index: u64) -> Result<Weight<'b>, ImatrixError> {
    let place = GgufPlace::Part {
        what: "weight",
        index,
    };
    let length = |cursor: &mut Cursor<'b>, what, place: &GgufPlace, least| {
        let found = i32(cursor, place)?;
        match u64::try_from(found) {
            Ok(length) if found >= least => Ok(length),
            _ => Err(ImatrixError::Length {
                index,
                found,
                what,
                least,
            }),
        }
    };
    let bytes = length(cursor, "bytes of name", &place, 1)?;
    if bytes > NAME_MAX {
        let most = NAME_MAX;
        return Err(place.is(GgufProblem::NameLength { bytes, most }).into());
    }
    let name = cursor.take(bytes, &place)?;
    let name = sound_name(name).map_err(|problem| place.is(problem))?;
    let place = GgufPlace::Weight(Quoted::new(name));
    let chunks = length(cursor, "chunks", &place, 0)?;
    let values = length(cursor, "values", &place, 1)?;
    let stored = cursor.take(values.saturating_mul(4), &place)?;
    let entry = ImatrixEntry {
        sums: Allowed::NotNegative.read(name, stored)?,
        counts: vec![chunks as f64],
        sums_of_x: None,
    };
    entry.check_counted(name)?;
    Ok(Weight { name, entry })
}

#[derive(Default)]
struct Trailer {
    chunks: u64,
    datasets: Vec<String>,
}

fn trailer(cursor: &mut Cursor<'_>) -> Result<Trailer, ImatrixError> {
    let mut trailer = Trailer::default();
    let place = GgufPlace::Trailer;
    let number = |cursor: &mut Cursor<'_>, what| {
        let found = i32(cursor, &place)?;
        let allowed = || ImatrixError::Number {
            what,
            found: found.into(),
        };
        u64::try_from(found).map_err(|_| allowed())
    };
    if cursor.left() > 0 {
        trailer.chunks = number(cursor, "its chunks")?;
    }
    if cursor.left() > 0 {
        let bytes = number(cursor, "the bytes of its text's name")?;
        let name = cursor.take(bytes, &GgufPlace::Trailer)?;
        if !name.is_empty() {
            trailer.datasets.push(String::from_utf8_lossy(name).into());
        }
    }
    match cursor.left() {
        0 => Ok(trailer),
        left => Err(ImatrixError::Trailing(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A weight in the bytes of a file.
    fn stored(name: &[u8], chunks: i32, values: &[f32]) -> Vec<u8> {
        let count = |n: usize| i32::try_from(n).unwrap().to_le_bytes();
        let mut bytes = count(name.len()).to_vec();
        bytes.extend(name);
        bytes.extend(chunks.to_le_bytes());
        bytes.extend(count(values.len()));
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    }

    fn file(weights: i32, stored: &[Vec<u8>], trailer: &[u8]) -> Vec<u8> {
        [&weights.to_le_bytes()[..], &stored.concat(), trailer].concat()
    }

    #[test]
    fn means_are_values_by_chunks_and_the_trailer_may_end_early() {
        let weights = [stored(b"b", 4, &[8.0, 0.0]), stored(b"a", 0, &[0.0; 3])];
        let text = [&5_i32.to_le_bytes()[..], &3_i32.to_le_bytes(), b"x.y"].concat();
        let read = |trailer: &[u8]| Imatrix::parse(&file(2, &weights, trailer)).unwrap();
        for (trailer, chunks, datasets) in [
            (&text[..], 5, &["x.y"][..]),
            (&text[..4], 5, &[]),
            (&[], 0, &[]),
        ] {
            let read = read(trailer);
            assert_eq!((read.chunks, read.chunk_size), (chunks, 0));
            assert_eq!(read.datasets, datasets);
            assert_eq!(read.unit, CountUnit::Chunks);
            assert_eq!(read.entries["b"].mean_squares(0), Some(vec![2.0, 0.0]));
            assert_eq!(read.entries["a"].mean_squares(0), None);
            assert_eq!(
                (read.entries["a"].width(), read.entries["a"].matrices()),
                (3, 1)
            );
        }
        // Bytes that are no text are kept in a readable form.
        let text = [&5_i32.to_le_bytes()[..], &1_i32.to_le_bytes(), &[255]].concat();
        assert_eq!(read(&text).datasets, ["\u{fffd}"]);
    }

    fn numbers(numbers: &[i32]) -> Vec<u8> {
        numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
    }

    fn one(stored: &[u8]) -> Vec<u8> {
        file(1, &[stored.to_vec()], &[])
    }

    fn assert_refused(cases: &[(Vec<u8>, &str)]) {
        for (bytes, said) in cases {
            let message = Imatrix::parse(bytes).unwrap_err().to_string();
            assert!(message.contains(said), "{said}: {message}");
        }
    }

    #[test]
    fn lengths_that_lie_are_named() {
        let sound = stored(b"a", 1, &[1.0]);
        let once = core::slice::from_ref(&sound);
        let cut = &sound[..sound.len() - 1];
        assert_refused(&[
            (vec![1, 0, 0], "GGUF header: truncated at byte 0: 4 bytes"),
            (file(0, &[], &[]), "it does not begin with \"GGUF\""),
            (file(-2, &[], &[]), "would have -2 weights"),
            (file(2, once, &[]), "weight 1 (counted from 0): truncated"),
            (
                file(i32::MAX, once, &[]),
                "weight 1 (counted from 0): truncated",
            ),
            (
                one(&numbers(&[0])),
                "weight 0 (counted from 0) has 0 bytes of",
            ),
            (one(&numbers(&[-1])), "has -1 bytes of name; 1 or more are"),
            (one(&numbers(&[65_536])), "has 65536 bytes; 1 to 65535"),
            (one(&numbers(&[9, 0])), "9 bytes are announced, 4 are left"),
            (
                one(&stored(b"a", -1, &[1.0])),
                "has -1 chunks; 0 or more are",
            ),
            (one(&stored(b"a", 1, &[])), "has 0 values; 1 or more are"),
            (one(cut), "weight 'a': truncated at byte 17: 4 bytes"),
            (file(1, once, &[1]), "end of the imatrix: truncated"),
            (file(1, once, &numbers(&[-1])), "its chunks are -1; 0 or"),
            (file(1, once, &numbers(&[1, -1])), "text's name are -1"),
            (
                file(1, once, &numbers(&[1, 5, 0])),
                "end of the imatrix: truncated at byte 29: 5",
            ),
            (
                file(1, once, &numbers(&[1, 0, 0])),
                "4 bytes are left behind",
            ),
        ]);
    }

    #[test]
    fn names_and_numbers_that_lie_are_named() {
        let sound = stored(b"a", 1, &[1.0]);
        let uncounted = "weight 'a': matrix 0 (counted from 0) has a count of 0 and yet a sum of 2.0 at channel 1";
        assert_refused(&[
            (
                file(2, &[sound.clone(), sound], &[]),
                "weight 'a' comes twice",
            ),
            (
                one(&stored(b"a\xff", 1, &[1.0])),
                "is not UTF-8 from byte 1",
            ),
            (one(&stored(b"a\0", 1, &[1.0])), "control character U+0000"),
            (one(&stored(b"a", 0, &[0.0, 2.0])), uncounted),
            (
                one(&stored(b"a", 1, &[0.0, f32::NAN])),
                "tensor 'a': number 1 (counted from 0) is NaN",
            ),
            (
                one(&stored(b"a", 1, &[-1.0])),
                "is -1.0; finite numbers of at",
            ),
            (one(&stored(b"a", 1, &[f32::INFINITY])), "is inf;"),
        ]);
    }
}
