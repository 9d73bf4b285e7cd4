//! The journal: one sealed line for each shard that was accepted, in the order in which it is
//! folded.
//!
//! A shard's number is its place in that order. A line is written before the shard is folded. It
//! need not be on disk before a snapshot that depends on it is, which syncs the journal first. A
//! last line that a crash cut off is dropped; the shard is then new again. Any other damaged line
//! refuses the state.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::disk::append::AppendFile;
use crate::disk::identity::Identity;
use crate::error::Fatal;
use crate::state::seal::{seal, unseal};

/// A shard that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its place in the order, from 1.
    pub(crate) number: u64,
    /// File name.
    pub(crate) name: String,
    /// BLAKE3 of its content, in hexadecimal: the shard's identity.
    pub(crate) content: String,
    /// The file as it was; only spares hashing it again.
    pub(crate) file: Identity,
    /// Rows of the site that has most; 0 for a shard without a row for a selected layer.
    pub(crate) rows: usize,
    /// What `qera.source` says.
    pub(crate) full_precision: Option<bool>,
}

/// Which shards statistics are made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gathered {
    /// Number of the last shard in them.
    pub(crate) position: u64,
    /// BLAKE3 chained over the contents of the shards with rows: equal for equal shards in equal
    /// order.
    pub(crate) digest: String,
    /// Shards with a row for a selected layer.
    pub(crate) shards: usize,
    /// Shards without one.
    pub(crate) empty: usize,
    /// Whether all rows came from the full-precision model: one shard that says no decides, one
    /// that does not say leaves it open.
    pub(crate) full_precision: Option<bool>,
}

impl Gathered {
    /// Takes the next shard in.
    pub(crate) fn advance(&mut self, record: &Record) {
        self.position = record.number;
        if record.rows == 0 {
            self.empty += 1;
            return;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.digest.as_bytes());
        hasher.update(record.content.as_bytes());
        self.digest = hasher.finalize().to_hex().to_string();
        self.full_precision = match (self.shards, self.full_precision, record.full_precision) {
            (0, _, says) => says,
            (_, Some(false), _) | (_, _, Some(false)) => Some(false),
            (_, Some(true), Some(true)) => Some(true),
            _ => None,
        };
        self.shards += 1;
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Shard(Record),
    /// The shard with this number was gone before a snapshot held it.
    Lost(u64),
}

/// What a journal's bytes say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    /// Shards that count, in order.
    pub(crate) records: Vec<Record>,
    /// Number of the last shard, whether it counts or not.
    pub(crate) last: u64,
    /// Bytes up to the end of the last whole line.
    pub(crate) whole: usize,
}

/// A line that is damaged, and not the last one.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is damaged")]
pub(crate) struct DamagedLine {
    /// Counted from 1.
    pub(crate) line: usize,
}

impl Lines {
    /// Reads a journal. A last line that is not whole is left out.
    ///
    /// # Errors
    /// [`DamagedLine`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, DamagedLine> {
        let mut lines = Self::default();
        let mut lost = BTreeSet::new();
        for (index, line) in bytes.split_inclusive(|&b| b == b'\n').enumerate() {
            let sealed = line.strip_suffix(b"\n");
            match sealed.and_then(unseal) {
                Some(Line::Shard(record)) if record.number == lines.last + 1 => {
                    lines.last = record.number;
                    lines.records.push(record);
                }
                Some(Line::Lost(shard)) => {
                    lost.insert(shard);
                }
                _ if lines.whole + line.len() == bytes.len() => break,
                _ => return Err(DamagedLine { line: index + 1 }),
            }
            lines.whole += line.len();
        }
        lines
            .records
            .retain(|record| !lost.contains(&record.number));
        Ok(lines)
    }
}

/// A journal that was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The journal.
    pub(crate) journal: Journal,
    /// Bytes of a last line that was cut off.
    pub(crate) torn: usize,
}

/// The journal of a state folder.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: AppendFile,
    /// Shards that count, in order.
    records: Vec<Record>,
    last: u64,
    /// Its bytes without a last line that was cut off, until that is dropped.
    whole: Option<u64>,
    unsynced: bool,
}

impl Journal {
    /// Opens or begins the journal. A last line that was cut off is left where it is until the next
    /// one takes its place: a run that ends before has changed nothing.
    ///
    /// # Errors
    /// [`Fatal::StateRefused`] naming a damaged line, [`Fatal::Io`].
    pub(crate) fn open(path: &Path) -> Result<Opened, Fatal> {
        let file = AppendFile::open(path).map_err(Fatal::io(path, "open the journal"))?;
        // Its name is durable before a shard is: files go once a snapshot holds their rows.
        path.parent().into_iter().try_for_each(disk::sync)?;
        let bytes = disk::read(path).map_err(Fatal::io(path, "read the journal"))?;
        let lines = Lines::parse(&bytes).map_err(|error| Fatal::StateRefused {
            path: path.to_path_buf(),
            reason: error.to_string(),
        })?;
        let torn = bytes.len() - lines.whole;
        Ok(Opened {
            torn,
            journal: Self {
                path: path.to_path_buf(),
                file,
                records: lines.records,
                last: lines.last,
                whole: (torn > 0).then_some(lines.whole as u64),
                unsynced: false,
            },
        })
    }

    /// Shards that count, in order.
    #[must_use]
    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    /// Appends a shard; its number is set here.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn append(&mut self, mut record: Record) -> Result<&Record, Fatal> {
        record.number = self.last + 1;
        self.write(&Line::Shard(record.clone()))?;
        self.last = record.number;
        self.records.push(record);
        Ok(&self.records[self.records.len() - 1])
    }

    /// Says that a shard was gone before a snapshot held it: it does not count, and may come again.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn lose(&mut self, number: u64) -> Result<(), Fatal> {
        self.write(&Line::Lost(number))?;
        self.records.retain(|record| record.number != number);
        Ok(())
    }

    /// Makes every line durable.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn sync(&mut self) -> Result<(), Fatal> {
        if self.unsynced {
            self.file
                .sync()
                .map_err(Fatal::io(&self.path, "sync the journal"))?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// The shards that count, up to this number.
    #[must_use]
    pub(crate) fn gathered(&self, through: u64) -> Gathered {
        let mut gathered = Gathered::default();
        let counted = self.records.iter().take_while(|r| r.number <= through);
        counted.for_each(|record| gathered.advance(record));
        gathered
    }

    fn write(&mut self, line: &Line) -> Result<(), Fatal> {
        if let Some(whole) = self.whole {
            let dropped = self.file.truncate(whole);
            dropped.map_err(Fatal::io(&self.path, "drop the torn last line"))?;
            self.whole = None;
        }
        let text = seal(line) + "\n";
        self.file
            .append(text.as_bytes())
            .map_err(Fatal::io(&self.path, "append to the journal"))?;
        self.unsynced = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(journal: &Path, content: &str) -> Record {
        Record {
            number: 0,
            name: format!("{content}.safetensors"),
            content: content.into(),
            file: Identity::at(journal).unwrap(),
            rows: 7,
            full_precision: Some(true),
        }
    }

    #[test]
    fn lines_survive_and_damage_is_seen() {
        let path = std::env::temp_dir().join(format!("qera-journal-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let Opened { mut journal, .. } = Journal::open(&path).unwrap();
        for content in ["a", "b", "c"] {
            let record = record(&path, content);
            journal.append(record).unwrap();
        }
        journal.lose(2).unwrap();
        let digest = journal.gathered(3);
        assert_ne!(digest, journal.gathered(1));
        assert_eq!((digest.shards, digest.full_precision), (2, Some(true)));
        drop(journal);

        let bytes = std::fs::read(&path).unwrap();
        let Opened { mut journal, torn } = Journal::open(&path).unwrap();
        assert_eq!((torn, journal.last, journal.gathered(3)), (0, 3, digest));
        let names: Vec<_> = journal.records().iter().map(|r| r.number).collect();
        assert_eq!(names, [1, 3]);
        let again = record(&path, "b");
        assert_eq!(journal.append(again).unwrap().number, 4);
        drop(journal);

        // A last line cut off anywhere is dropped, and the next one goes in its place.
        let longer = std::fs::read(&path).unwrap();
        for cut in bytes.len() + 1..longer.len() {
            std::fs::write(&path, &longer[..cut]).unwrap();
            let Opened { mut journal, torn } = Journal::open(&path).unwrap();
            assert_eq!((torn, journal.last), (cut - bytes.len(), 3));
            assert_eq!(std::fs::read(&path).unwrap(), &longer[..cut], "not before");
            let again = record(&path, "d");
            journal.append(again).unwrap();
            drop(journal);
            assert_eq!(Journal::open(&path).unwrap().journal.last, 4);
        }
        let mut damaged = bytes.clone();
        damaged[20] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let message = Journal::open(&path).unwrap_err().to_string();
        assert!(message.contains("line 1 is damaged"), "{message}");
        std::fs::remove_file(&path).unwrap();
    }
}
