//! Seals a value as one line of JSON with its checksum. A line that is torn or flipped does not
//! read back.

use core::fmt;
use core::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Number of hexadecimal digits of BLAKE3 behind each line: 64 bits, against accidents.
const DIGITS: usize = 16;

/// Why a sealed record is not read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealError {
    /// The line is not what was sealed.
    #[error("is damaged")]
    Damaged,
    /// The record is of a version that this program does not read.
    #[error(
        "has version {found}, this program reads {}: go on with the qera that wrote it, or choose another --state and let it have the shards again",
        Versions(read)
    )]
    Version {
        /// The record's version.
        found: u32,
        /// The versions that are read.
        read: RangeInclusive<u32>,
    },
}

/// A range of versions, written for a message.
struct Versions<'a>(&'a RangeInclusive<u32>);

impl fmt::Display for Versions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0.start(), self.0.end());
        if first == last {
            write!(f, "version {first}")
        } else {
            write!(f, "versions {first} to {last}")
        }
    }
}

/// The part that records of all versions have.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Reads the record in a sealed line of one of these versions. The version is looked at first,
/// because the rest of another version may have any form.
///
/// # Errors
/// [`SealError`].
pub(crate) fn unseal_record<T: DeserializeOwned>(
    line: &[u8],
    read: RangeInclusive<u32>,
) -> Result<T, SealError> {
    let line = line.trim_ascii_end();
    let Versioned { version: found } = unseal(line).ok_or(SealError::Damaged)?;
    if !read.contains(&found) {
        return Err(SealError::Version { found, read });
    }
    unseal(line).ok_or(SealError::Damaged)
}

/// Seals a value in one line, without a line end.
pub(crate) fn seal(value: &impl Serialize) -> String {
    // Plain structures of numbers and strings always serialize.
    let json = serde_json::to_string(value).unwrap_or_default();
    let checksum = checksum(&json);
    format!("{json}\t{checksum}")
}

/// The value in a sealed line; `None` where the line is not whole.
pub(crate) fn unseal<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let line = core::str::from_utf8(line).ok()?;
    let (json, found) = line.rsplit_once('\t')?;
    if checksum(json) != found {
        return None;
    }
    serde_json::from_str(json).ok()
}

fn checksum(json: &str) -> String {
    blake3::hash(json.as_bytes()).to_hex()[..DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message names every version that is read.
    #[test]
    fn versions_are_named() {
        let line = seal(&serde_json::json!({ "version": 7 }));
        let refused = |read| {
            let found = unseal_record::<serde_json::Value>(line.as_bytes(), read);
            found.unwrap_err().to_string()
        };
        assert!(unseal_record::<serde_json::Value>(line.as_bytes(), 3..=7).is_ok());
        for (read, said) in [
            (3..=3, "has version 7, this program reads version 3: "),
            (3..=4, "has version 7, this program reads versions 3 to 4: "),
        ] {
            let message = refused(read);
            assert!(message.starts_with(said), "{message}");
        }
    }

    #[test]
    fn whole_lines_only() {
        let line = seal(&(1_u64, "a\tb", 0.1_f64));
        let back: (u64, String, f64) = unseal(line.as_bytes()).unwrap();
        assert_eq!((back.0, back.1.as_str(), back.2), (1, "a\tb", 0.1));
        for cut in 0..line.len() {
            assert!(unseal::<(u64, String, f64)>(&line.as_bytes()[..cut]).is_none());
        }
        let flipped = line.replacen('1', "2", 1);
        assert!(unseal::<(u64, String, f64)>(flipped.as_bytes()).is_none());
        assert!(unseal::<(u64, String, f64)>(b"\xff\t\xff").is_none());
    }
}
