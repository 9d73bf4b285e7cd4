//! The file `shards` of a state: 45 bytes for each of the shards that every snapshot holds. Two
//! questions are still asked of such a shard: whether a content came before, and whether a file of
//! the watched folder is this shard. The journal has the shards that came after.
//!
//! The file: [`MAGIC`], the number of shards (u64), [`BRIEF`] bytes each, BLAKE3 of all of that.
//! Numbers are little-endian.

use std::path::Path;

use crate::disk::identity::Identity;
use crate::disk::{read_if_there, replace_private};
use crate::error::Fatal;

/// The file's name.
const FILE: &str = "shards";
/// The first bytes of the file; another form will begin otherwise.
const MAGIC: &[u8; 8] = b"qerashd1";
/// Bytes of one shard: its content, its file, its rows, and one byte of flags.
const BRIEF: usize = 32 + 8 + 4 + 1;
/// Bytes of the hash at the end.
const SEAL: usize = 32;
/// Flag: the shard counts, because it was not lost.
const COUNTS: u8 = 1;
/// Flag: the shard says whether its rows came from the full-precision model,
const SAYS: u8 = 2;
/// Flag: and they did.
const FULL_PRECISION: u8 = 4;

/// What is kept of a shard that every snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Brief {
    /// BLAKE3 of the shard's content.
    pub(crate) content: [u8; 32],
    /// A digest that tells which file the shard was: [`file_digest`].
    pub(crate) file: u64,
    /// Rows, at most `u32::MAX`.
    pub(crate) rows: u32,
    flags: u8,
}

/// The file `shards` is not what was written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("is damaged")]
pub(crate) struct DamagedBriefs;

/// A digest of a file's name and identity: 64 bits of BLAKE3.
pub(crate) fn file_digest(name: &str, file: Identity) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes());
    hasher.update(&[0]); // In no name.
    hasher.update(&file.to_bytes());
    let mut digest = [0; 8];
    hasher.finalize_xof().fill(&mut digest);
    u64::from_le_bytes(digest)
}

impl Brief {
    /// The brief of a shard that does not count.
    pub(crate) const LOST: Self = Self {
        content: [0; 32],
        file: 0,
        rows: 0,
        flags: 0,
    };

    /// The brief of a shard that counts, from its content in hexadecimal and the digest of its
    /// file; `None` where the content is no hash.
    pub(crate) fn of(
        content: &str,
        file: u64,
        rows: usize,
        full_precision: Option<bool>,
    ) -> Option<Self> {
        let content = blake3::Hash::from_hex(content).ok()?;
        let says = match full_precision {
            None => 0,
            Some(false) => SAYS,
            Some(true) => SAYS | FULL_PRECISION,
        };
        Some(Self {
            content: *content.as_bytes(),
            file,
            rows: u32::try_from(rows).unwrap_or(u32::MAX),
            flags: COUNTS | says,
        })
    }

    /// Whether the shard counts.
    pub(crate) const fn counts(&self) -> bool {
        self.flags & COUNTS != 0
    }

    /// Whether its rows came from the full-precision model; `None` where the shard does not say.
    pub(crate) const fn full_precision(&self) -> Option<bool> {
        if self.flags & SAYS == 0 {
            return None;
        }
        Some(self.flags & FULL_PRECISION != 0)
    }

    /// BLAKE3 of the shard's content, in hexadecimal.
    pub(crate) fn content_hex(&self) -> String {
        blake3::Hash::from_bytes(self.content).to_hex().to_string()
    }

    fn to_bytes(self) -> [u8; BRIEF] {
        let mut bytes = [0; BRIEF];
        bytes[..32].copy_from_slice(&self.content);
        bytes[32..40].copy_from_slice(&self.file.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.rows.to_le_bytes());
        bytes[44] = self.flags;
        bytes
    }

    fn from_bytes(bytes: &[u8; BRIEF]) -> Self {
        let (content, rest) = bytes.split_at(32);
        let (file, rest) = rest.split_at(8);
        let (rows, flags) = rest.split_at(4);
        let mut brief = Self::LOST;
        brief.content.copy_from_slice(content);
        let mut eight = [0; 8];
        eight.copy_from_slice(file);
        brief.file = u64::from_le_bytes(eight);
        let mut four = [0; 4];
        four.copy_from_slice(rows);
        brief.rows = u32::from_le_bytes(four);
        brief.flags = flags[0];
        brief
    }
}

/// Reads briefs from the file's bytes.
///
/// # Errors
/// [`DamagedBriefs`].
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<Brief>, DamagedBriefs> {
    let (whole, seal) = bytes.split_last_chunk::<SEAL>().ok_or(DamagedBriefs)?;
    if blake3::hash(whole) != blake3::Hash::from_bytes(*seal) {
        return Err(DamagedBriefs);
    }
    let rest = whole.strip_prefix(MAGIC).ok_or(DamagedBriefs)?;
    let (count, rest) = rest.split_first_chunk::<8>().ok_or(DamagedBriefs)?;
    let (briefs, rest) = rest.as_chunks::<BRIEF>();
    if !rest.is_empty() || u64::from_le_bytes(*count) != briefs.len() as u64 {
        return Err(DamagedBriefs);
    }
    Ok(briefs.iter().map(Brief::from_bytes).collect())
}

/// The bytes of a file with these briefs.
pub(crate) fn to_bytes(briefs: &[Brief]) -> Vec<u8> {
    let length = MAGIC.len() + 8 + BRIEF * briefs.len() + SEAL;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(MAGIC);
    bytes.extend((briefs.len() as u64).to_le_bytes());
    for brief in briefs {
        bytes.extend(brief.to_bytes());
    }
    let seal = blake3::hash(&bytes);
    bytes.extend(seal.as_bytes());
    bytes
}

/// Reads the briefs of a state; none where it has no such file.
///
/// # Errors
/// [`Fatal::StateRefused`] for a damaged file, [`Fatal::Io`].
pub(crate) fn read(state: &Path) -> Result<Vec<Brief>, Fatal> {
    let path = state.join(FILE);
    let Some(bytes) = read_if_there(&path)? else {
        return Ok(Vec::new());
    };
    parse(&bytes).map_err(|error| Fatal::StateRefused {
        path,
        reason: error.to_string(),
    })
}

/// Writes the briefs of a state, in one step.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn write(state: &Path, briefs: &[Brief]) -> Result<(), Fatal> {
    replace_private(&state.join(FILE), &to_bytes(briefs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brief(number: u8, full_precision: Option<bool>) -> Brief {
        let content = blake3::hash(&[number]).to_hex();
        let file = file_digest(&format!("{number}.safetensors"), Identity::default());
        Brief::of(&content, file, usize::from(number), full_precision).unwrap()
    }

    #[test]
    fn what_is_written_reads_back_in_64_bytes_a_shard_and_any_change_is_seen() {
        let says = [None, Some(false), Some(true)];
        let mut briefs: Vec<_> = (0..9).map(|n| brief(n, says[usize::from(n % 3)])).collect();
        briefs.push(Brief::LOST);
        let bytes = to_bytes(&briefs);
        assert_eq!(parse(&bytes).unwrap(), briefs);
        assert!(bytes.len() <= 64 * briefs.len(), "{}", bytes.len());
        assert!(!briefs[9].counts() && briefs[8].counts());
        let said: Vec<_> = briefs.iter().take(3).map(Brief::full_precision).collect();
        assert_eq!(said, says);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(parse(&changed), Err(DamagedBriefs), "{at}");
            assert_eq!(parse(&bytes[..at]), Err(DamagedBriefs), "{at}");
        }
    }

    #[test]
    fn a_file_is_known_by_its_name_and_by_what_it_was() {
        let file = Identity::default();
        let mut touched = file;
        touched.bytes = 1;
        let digests = [
            file_digest("a", file),
            file_digest("b", file),
            file_digest("a", touched),
        ];
        assert_eq!(digests[0], file_digest("a", Identity::default()));
        assert!(digests[0] != digests[1] && digests[0] != digests[2]);
    }
}
