//! The journal has one sealed line for each accepted shard, in the order in which shards are
//! folded.
//!
//! A shard's number is its place in that order. Its line is written before the shard is folded. The
//! line must be on disk before a snapshot that depends on it is, so that every snapshot syncs the
//! journal first. After a loss of power any part of the journal that no snapshot holds may be
//! missing. Then everything from the first broken line on is dropped, and the shards in it are new
//! again. A damaged line of a shard that a snapshot holds refuses the state.
//!
//! Lines of shards that every snapshot holds are taken out with each snapshot. What is still asked
//! of those shards is in the file `shards` beside it (`briefs.rs`), which is durable before the
//! lines go.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::disk::append::AppendFile;
use crate::disk::identity::Identity;
use crate::error::Fatal;
use crate::state::briefs::{self, Brief, file_digest};
use crate::state::seal::{seal, unseal};

/// An accepted shard, as a line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The shard's place in the order, from 1.
    pub(crate) number: u64,
    /// File name.
    pub(crate) name: String,
    /// BLAKE3 of its content, in hexadecimal: the shard's identity.
    pub(crate) content: String,
    /// The file as it was when it was accepted; an equal file is not hashed again.
    pub(crate) file: Identity,
    /// Rows of the site that has most of them; 0 for a shard without a row for a selected layer.
    pub(crate) rows: usize,
    /// What `qera.source` of the shard says.
    pub(crate) full_precision: Option<bool>,
}

impl Record {
    /// The brief of this shard; `None` where its content is no hash.
    fn brief(&self) -> Option<Brief> {
        let file = file_digest(&self.name, self.file);
        Brief::of(&self.content, file, self.rows, self.full_precision)
    }
}

/// The shards that statistics were made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gathered {
    /// Number of the last shard of them.
    pub(crate) position: u64,
    /// A BLAKE3 chain over the contents of the shards with rows. It is equal for equal shards in
    /// equal order.
    pub(crate) digest: String,
    /// Number of shards with a row for a selected layer.
    pub(crate) shards: usize,
    /// Number of shards without one.
    pub(crate) empty: usize,
    /// Whether all rows came from the full-precision model. One shard that says no decides; one
    /// that does not say leaves it open.
    pub(crate) full_precision: Option<bool>,
}

impl Gathered {
    /// Adds the next shard.
    pub(crate) fn advance(&mut self, record: &Record) {
        self.position = record.number;
        if record.rows == 0 {
            self.empty += 1;
        } else {
            self.take_rows(&record.content, record.full_precision);
        }
    }

    fn advance_brief(&mut self, number: u64, brief: &Brief) {
        self.position = number;
        if brief.rows == 0 {
            self.empty += 1;
        } else {
            self.take_rows(&brief.content_hex(), brief.full_precision());
        }
    }

    fn take_rows(&mut self, content: &str, full_precision: Option<bool>) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.digest.as_bytes());
        hasher.update(content.as_bytes());
        self.digest = hasher.finalize().to_hex().to_string();
        self.full_precision = match (self.shards, self.full_precision, full_precision) {
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
    /// The shard with this number was gone before a snapshot held it. Its own line comes before
    /// this one, or was taken out already.
    Lost(u64),
}

/// What a journal's bytes say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    /// Shards that count, in order.
    pub(crate) records: Vec<Record>,
    /// Numbers of the shards that do not count.
    lost: BTreeSet<u64>,
    /// Number of the last shard, whether it counts or not.
    pub(crate) last: u64,
    /// The number of bytes up to the end of the last whole line. What is behind them may be
    /// anything.
    pub(crate) whole: usize,
}

impl Lines {
    /// Reads a journal from which the lines of at most `lacking` first shards were taken out. It
    /// stops at the first line that is not whole, or that does not follow. A line whose content
    /// counts already does not follow: after a loss of power such lines may be left of an end that
    /// was dropped before.
    pub(crate) fn parse(bytes: &[u8], lacking: u64) -> Self {
        let mut lines = Self::default();
        let (mut is_first, mut counting) = (true, HashMap::new());
        for line in bytes.split_inclusive(|&b| b == b'\n') {
            let sealed = line.strip_suffix(b"\n");
            match sealed.and_then(unseal) {
                Some(Line::Shard(record))
                    if (record.number == lines.last + 1
                        || is_first && (1..=lacking + 1).contains(&record.number))
                        && !counting.contains_key(&record.content) =>
                {
                    if !lines.lost.contains(&record.number) {
                        counting.insert(record.content.clone(), record.number);
                    }
                    is_first = false;
                    lines.last = record.number;
                    lines.records.push(record);
                }
                Some(Line::Lost(shard)) => {
                    // A shard whose own line was taken out.
                    if shard == lines.last.max(lacking) + 1 {
                        (is_first, lines.last) = (false, shard);
                    }
                    counting.retain(|_, number| *number != shard);
                    lines.lost.insert(shard);
                }
                _ => break,
            }
            lines.whole += line.len();
        }
        let lost = &lines.lost;
        lines
            .records
            .retain(|record| record.number > lacking && !lost.contains(&record.number));
        lines.last = lines.last.max(lacking);
        lines
    }

    /// Marks the shards that were lost since as such in the briefs.
    fn forget_lost(&self, briefs: &mut [Brief]) {
        for &number in &self.lost {
            let index = usize::try_from(number)
                .ok()
                .and_then(|of| of.checked_sub(1));
            if let Some(brief) = index.and_then(|index| briefs.get_mut(index)) {
                *brief = Brief::LOST;
            }
        }
    }
}

/// A brief and the number of its shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NumberedBrief<'a> {
    /// The shard's number.
    pub(crate) number: u64,
    /// The brief itself: what is kept of the shard.
    pub(crate) brief: &'a Brief,
}

/// A file of the watched folder.
#[derive(Debug, Clone)]
pub(crate) struct NamedFile {
    /// The name of the file.
    pub(crate) name: String,
    /// The file's identity.
    pub(crate) file: Identity,
}

/// A journal that was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The journal.
    pub(crate) journal: Journal,
    /// The number of bytes of a broken end that was cut off.
    pub(crate) torn: usize,
}

/// The journal of a state folder.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: AppendFile,
    /// Briefs of the first shards, whether they count or not. Their lines were taken out.
    briefs: Vec<Brief>,
    /// Records of the later shards that count, in order.
    records: Vec<Record>,
    last: u64,
    /// The length of the file without a broken end, until that end is dropped.
    whole: Option<u64>,
    unsynced: bool,
}

impl Journal {
    /// Opens or begins the journal of a state whose newest snapshot holds the shards up to number
    /// `held`. A broken end stays where it is until the next line takes its place, so that a run
    /// that ends before has changed nothing.
    ///
    /// # Errors
    /// [`Fatal::StateRefused`] naming the damaged line of a shard that a snapshot holds;
    /// [`Fatal::Io`].
    pub(crate) fn open(path: &Path, held: u64) -> Result<Opened, Fatal> {
        let file = AppendFile::open(path).map_err(Fatal::io(path, "open the journal"))?;
        // The journal's name in its folder is durable before the journal has a shard, because shard
        // files are removed once a snapshot holds their rows.
        path.parent().into_iter().try_for_each(disk::sync)?;
        let bytes = disk::read(path).map_err(Fatal::io(path, "read the journal"))?;
        let mut briefs = path.parent().map_or_else(|| Ok(Vec::new()), briefs::read)?;
        let lines = Lines::parse(&bytes, briefs.len() as u64);
        if lines.last < held {
            let whole = bytes.get(..lines.whole).unwrap_or_default();
            let line = whole.iter().filter(|&&byte| byte == b'\n').count() + 1;
            let what = match whole.len() == bytes.len() {
                true => "is missing",
                false => "is damaged",
            };
            return Err(Fatal::StateRefused {
                path: path.to_path_buf(),
                reason: format!("line {line} {what}, of a shard that the newest snapshot holds"),
            });
        }
        lines.forget_lost(&mut briefs);
        let torn = bytes.len() - lines.whole;
        Ok(Opened {
            torn,
            journal: Self {
                path: path.to_path_buf(),
                file,
                briefs,
                records: lines.records,
                last: lines.last,
                whole: (torn > 0).then_some(lines.whole as u64),
                // A run that was killed may not have synced what is read here.
                unsynced: !bytes.is_empty(),
            },
        })
    }

    /// The shards that count, in order, apart from those of which there is only a brief.
    #[must_use]
    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    /// The briefs of shards that count and came before those in [`records`](Self::records), with
    /// the shards' numbers.
    pub(crate) fn briefs(&self) -> impl Iterator<Item = NumberedBrief<'_>> {
        let numbered = (1..).zip(&self.briefs);
        let numbered = numbered.filter(|(_, brief)| brief.counts());
        numbered.map(|(number, brief)| NumberedBrief { number, brief })
    }

    /// Turns the records of shards up to number `through`, which every snapshot holds, into briefs
    /// and takes their lines out. It writes all briefs anew.
    ///
    /// # Errors
    /// [`Fatal::Io`]; the journal says the same as before then.
    pub(crate) fn shorten(&mut self, through: u64) -> Result<(), Fatal> {
        let held = self.records.iter().take_while(|of| of.number <= through);
        let held = held.map(Record::brief).collect::<Option<Vec<_>>>();
        let (Some(held), Some(state)) = (held.filter(|of| !of.is_empty()), self.path.parent())
        else {
            return Ok(());
        };
        let mut briefs = self.briefs.clone();
        for (record, brief) in self.records.iter().zip(&held) {
            let before = usize::try_from(record.number - 1).unwrap_or(usize::MAX);
            briefs.resize(before.max(briefs.len()), Brief::LOST);
            briefs.push(*brief);
        }
        briefs::write(state, &briefs)?;
        self.briefs = briefs;
        self.records.drain(..held.len());
        disk::replace_private(&self.path, self.lines().as_bytes())?;
        let file = AppendFile::open(&self.path);
        self.file = file.map_err(Fatal::io(&self.path, "open the journal"))?;
        (self.whole, self.unsynced) = (None, false);
        Ok(())
    }

    /// The lines of all shards after the briefs.
    fn lines(&self) -> String {
        let mut records = self.records.iter().peekable();
        let mut lines = String::new();
        for number in self.briefs.len() as u64 + 1..=self.last {
            let line = match records.next_if(|of| of.number == number) {
                Some(record) => seal(&Line::Shard(record.clone())),
                None => seal(&Line::Lost(number)),
            };
            lines += &(line + "\n");
        }
        lines
    }

    /// Turns briefs of shards beyond number `from` into records again, because no snapshot holds
    /// those shards. `known` gives the name and the identity of a brief's file, where that is still
    /// there.
    pub(crate) fn recall(&mut self, from: u64, mut known: impl FnMut(&Brief) -> Option<NamedFile>) {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        if from >= self.briefs.len() {
            return;
        }
        let briefs = self.briefs.split_off(from);
        let numbered = (from as u64 + 1..).zip(&briefs);
        let recalled = numbered
            .filter(|(_, brief)| brief.counts())
            .map(|(number, brief)| {
                // A file of another name is not looked for.
                let there = known(brief).unwrap_or_else(|| NamedFile {
                    name: brief.content_hex(),
                    file: Identity::default(),
                });
                Record {
                    number,
                    name: there.name,
                    content: brief.content_hex(),
                    file: there.file,
                    rows: usize::try_from(brief.rows).unwrap_or(usize::MAX),
                    full_precision: brief.full_precision(),
                }
            });
        let recalled: Vec<_> = recalled.collect();
        self.records.splice(..0, recalled);
    }

    /// Appends a shard and sets its number.
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

    /// Notes that a shard was gone before a snapshot held it. It does not count, and may come
    /// again.
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
        let briefs = self.briefs().take_while(|of| of.number <= through);
        briefs.for_each(|of| gathered.advance_brief(of.number, of.brief));
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
        let Opened { mut journal, .. } = Journal::open(&path, 0).unwrap();
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
        let Opened { mut journal, torn } = Journal::open(&path, 0).unwrap();
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
            let Opened { mut journal, torn } = Journal::open(&path, 0).unwrap();
            assert_eq!((torn, journal.last), (cut - bytes.len(), 3));
            assert_eq!(std::fs::read(&path).unwrap(), &longer[..cut], "not before");
            let again = record(&path, "d");
            journal.append(again).unwrap();
            drop(journal);
            assert_eq!(Journal::open(&path, 0).unwrap().journal.last, 4);
        }
        // Whatever follows a damaged line is dropped, unless a snapshot holds it.
        let mut damaged = bytes.clone();
        damaged[20] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let Opened { journal, torn } = Journal::open(&path, 0).unwrap();
        assert_eq!((torn, journal.last), (damaged.len(), 0));
        let message = Journal::open(&path, 1).unwrap_err().to_string();
        assert!(message.contains("line 1 is damaged"), "{message}");
        std::fs::remove_file(&path).unwrap();
    }

    /// The journal answers the same with briefs, also where the process ends between the writing of
    /// the two files, and where one of the shards was lost.
    #[test]
    fn lines_that_every_snapshot_holds_are_taken_out() {
        let state = std::env::temp_dir().join(format!("qera-briefs-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&state);
        std::fs::create_dir(&state).unwrap();
        let path = state.join("journal");
        let open = || Journal::open(&path, 0).unwrap().journal;
        let mut journal = open();
        for number in 1..=9_u8 {
            let content = blake3::hash(&[number]).to_hex();
            journal.append(record(&path, &content)).unwrap();
        }
        for lost in [2, 5, 6, 8] {
            journal.lose(lost).unwrap();
        }
        let all: Vec<Gathered> = (0..10).map(|through| journal.gathered(through)).collect();
        let before = std::fs::read(&path).unwrap();
        for through in [0, 4, 5, 7, 9] {
            journal.shorten(through).unwrap();
            let shorter = std::fs::read(&path).unwrap();
            for lines in [&before, &shorter] {
                std::fs::write(&path, lines).unwrap();
                journal = open();
                assert_eq!(journal.last, 9, "{through}");
                let found: Vec<_> = (0..10).map(|through| journal.gathered(through)).collect();
                assert_eq!(found, all, "{through}");
            }
            let of = |number: u64| journal.records().iter().any(|of| of.number == number);
            assert!(!of(through) && (of(9) || through == 9));
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        // Named again, the shards have lines, and others follow them.
        let mut recalled = open();
        recalled.recall(3, |_| None);
        let numbers: Vec<_> = recalled.records().iter().map(|of| of.number).collect();
        assert_eq!((numbers, recalled.briefs().count()), (vec![4, 7, 9], 2));
        assert_eq!(
            (0..10).map(|t| recalled.gathered(t)).collect::<Vec<_>>(),
            all
        );
        recalled.lose(7).unwrap();
        let next = record(&path, &blake3::hash(b"next").to_hex());
        assert_eq!(recalled.append(next).unwrap().number, 10);
        drop(recalled);
        let journal = open();
        let briefs: Vec<_> = journal.briefs().map(|of| of.number).collect();
        assert_eq!((briefs, journal.last), (vec![1, 3, 4, 9], 10));
        std::fs::remove_dir_all(&state).unwrap();
    }
}
