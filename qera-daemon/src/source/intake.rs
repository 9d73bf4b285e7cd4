//! Finds the files of the watched folder that can be read as shards now, and tells which of them
//! are new.
//!
//! Only a listing says what is there; whatever woke the daemon is just a hint. A file is taken when
//! its header says that it is complete and its producer holds no lock on `FILE.lock` (as vLLM does
//! while it writes). A file that stays incomplete and unchanged for [`PATIENCE`] counts as
//! truncated; `--once` does not wait for that.

use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Instant;

use blake3::Hash;

use crate::disk::clock::{now, since};
use crate::disk::identity::Identity;
use crate::disk::lock::is_held;
use crate::disk::tried::is_failure;
use crate::error::Fatal;
use crate::source::folder::{NoFile, UnansweredPath, list};
use crate::source::refusal::{Reason, Refusal};
use crate::source::shard::ShardHeader;

/// How long an incomplete file may stay unchanged before it counts as truncated.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is known of a file.
#[derive(Debug)]
struct Known {
    /// The file's identity when it was last looked at.
    identity: Identity,
    /// Since when it has had that identity.
    since: Instant,
    /// Whether nothing is to be done until the file changes: it was folded, refused or a duplicate.
    done: bool,
}

/// The result of a listing.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Complete new files, by name.
    pub(crate) ready: Vec<ShardHeader>,
    /// Files that are truncated, or no safetensors files.
    pub(crate) refused: Vec<Refusal>,
    /// Files that the disk does not give. The next listing tries them again.
    pub(crate) unanswered: Vec<Refusal>,
    /// The number of files that are incomplete or locked, and may be ready later.
    pub(crate) incomplete: usize,
    /// The number of visible files that are no shards.
    pub(crate) ignored: usize,
}

/// The watched folder, with what was taken from it.
#[derive(Debug)]
pub(crate) struct Intake {
    folder: PathBuf,
    patience: Duration,
    known: HashMap<OsString, Known>,
    contents: HashSet<Hash>,
    /// Names that are no files and were refused.
    no_files: HashSet<OsString>,
}

impl Intake {
    /// The intake of a folder of which nothing is known yet. `waits` says whether incomplete files
    /// are given time.
    #[must_use]
    pub(crate) fn new(folder: &Path, waits: bool) -> Self {
        Self {
            folder: folder.to_path_buf(),
            patience: if waits { PATIENCE } else { Duration::ZERO },
            known: HashMap::new(),
            contents: HashSet::new(),
            no_files: HashSet::new(),
        }
    }

    /// The folder.
    #[must_use]
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lists the folder.
    ///
    /// # Errors
    /// [`Fatal::Io`] when it cannot be read.
    pub(crate) fn scan(&mut self) -> Result<Scan, Fatal> {
        let listing = list(&self.folder)?;
        let mut scan = Scan {
            ignored: listing.ignored,
            ..Scan::default()
        };
        let mut here = HashSet::new();
        for UnansweredPath { path, error } in listing.unanswered {
            here.insert(path.file_name().unwrap_or_default().to_owned());
            scan.unanswered.push(unanswered(&path, error));
        }
        self.refuse_no_files(listing.no_files, &mut scan);
        for path in listing.shards {
            let Some(name) = path.file_name() else {
                continue;
            };
            here.insert(name.to_owned());
            self.look_at(&path, name.to_owned(), &mut scan);
        }
        self.known.retain(|name, _| here.contains(name));
        Ok(scan)
    }

    /// Refuses what is no file, once for as long as it is there.
    fn refuse_no_files(&mut self, no_files: Vec<NoFile>, scan: &mut Scan) {
        let before = core::mem::take(&mut self.no_files);
        for NoFile { path, is } in no_files {
            let name = path.file_name().unwrap_or_default().to_owned();
            if !before.contains(&name) {
                scan.refused.push(Refusal {
                    shard: shown(&name),
                    reason: Reason::NoFile { is },
                });
            }
            self.no_files.insert(name);
        }
    }

    /// Decides what is to be done about one file.
    fn look_at(&mut self, path: &Path, name: OsString, scan: &mut Scan) {
        let identity = match Identity::at(path) {
            Ok(identity) => identity,
            Err(error) if is_failure(&error) => {
                scan.unanswered.push(unanswered(path, error));
                return;
            }
            Err(_) => return, // Gone since it was listed.
        };
        let known = self.known.get(&name);
        if known.is_some_and(|k| k.done && k.identity == identity) {
            return;
        }
        if name.to_str().is_none() {
            scan.refused.push(Refusal {
                shard: shown(&name),
                reason: Reason::NameNotText,
            });
            self.done_with(name, identity);
            return;
        }
        if locked(path) {
            self.known.remove(&name);
            scan.incomplete += 1;
            return;
        }
        match ShardHeader::open(path) {
            Ok(header) => scan.ready.push(header),
            Err(refusal) if refusal.reason.is_gone() => {}
            Err(refusal) if refusal.reason.is_failure() => scan.unanswered.push(refusal),
            Err(refusal) if self.given_up(name, identity) => scan.refused.push(refusal),
            Err(_) => scan.incomplete += 1,
        }
    }

    /// Whether an incomplete file has not changed for long enough to be given up; then nothing more
    /// is done about it.
    fn given_up(&mut self, name: OsString, identity: Identity) -> bool {
        let fresh = || Known {
            identity,
            since: now(),
            done: false,
        };
        let known = self.known.entry(name).or_insert_with(fresh);
        if known.identity != identity {
            *known = fresh();
        }
        known.done = since(known.since) >= self.patience;
        known.done
    }

    /// Notes that nothing is to be done about this file until it changes.
    pub(crate) fn done_with(&mut self, name: OsString, identity: Identity) {
        self.known.insert(
            name,
            Known {
                identity,
                since: now(),
                done: true,
            },
        );
    }

    /// Whether a shard of this content was accepted before.
    #[must_use]
    pub(crate) fn has(&self, content: &str) -> bool {
        Hash::from_hex(content).is_ok_and(|content| self.contents.contains(&content))
    }

    /// Remembers an accepted content.
    pub(crate) fn accept(&mut self, content: &str) {
        // A text that is no hash is the content of no shard.
        self.contents.extend(Hash::from_hex(content));
    }

    /// Remembers an accepted content by its hash.
    pub(crate) fn accept_hash(&mut self, content: [u8; 32]) {
        self.contents.insert(Hash::from_bytes(content));
    }

    /// The time at which the next incomplete file will count as truncated.
    #[must_use]
    pub(crate) fn next_verdict(&self) -> Option<Instant> {
        let waiting = self.known.values().filter(|k| !k.done);
        waiting.map(|k| k.since + self.patience).min()
    }
}

/// The refusal of a shard of which the disk says nothing.
fn unanswered(path: &Path, error: std::io::Error) -> Refusal {
    Refusal {
        shard: shown(path.file_name().unwrap_or_default()),
        reason: Reason::Header(error.into()),
    }
}

/// A file name for messages: bytes that are no text are escaped.
fn shown(name: &OsStr) -> String {
    let bytes = name.as_encoded_bytes();
    name.to_str()
        .map_or_else(|| bytes.escape_ascii().to_string(), str::to_owned)
}

/// Whether a producer holds `FILE.lock`.
fn locked(path: &Path) -> bool {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    is_held(Path::new(&lock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::reading::content;

    const SHARD: &[u8] = b"\x02\0\0\0\0\0\0\0{}";

    #[test]
    fn complete_files_are_taken_once_and_again_when_they_change() {
        let folder = std::env::temp_dir().join(format!("qera-intake-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        let path = |name: &str| folder.join(name);
        let names =
            |scan: &Scan| -> Vec<String> { scan.ready.iter().map(|h| h.name.clone()).collect() };
        for (name, bytes) in [("b.safetensors", SHARD), ("a.safetensors", SHARD)] {
            std::fs::write(path(name), bytes).unwrap();
        }
        std::fs::write(path("half.safetensors"), &SHARD[..9]).unwrap();
        std::fs::write(path("note.txt"), "x").unwrap();
        let mut intake = Intake::new(&folder, true);
        let scan = intake.scan().unwrap();
        assert_eq!(names(&scan), ["a.safetensors", "b.safetensors"]);
        assert_eq!(
            (scan.incomplete, scan.ignored, scan.refused.len()),
            (1, 1, 0)
        );
        assert!(intake.next_verdict().is_some());
        assert_eq!(
            content(&scan.ready[0]).unwrap(),
            content(&scan.ready[1]).unwrap()
        );
        for header in scan.ready {
            intake.done_with(header.name.clone().into(), header.identity());
        }
        assert!(names(&intake.scan().unwrap()).is_empty());

        // With its full length the file is complete; a changed file is new; a locked one is not
        // read.
        std::fs::write(path("half.safetensors"), SHARD).unwrap();
        std::fs::write(path("a.safetensors"), b"\x03\0\0\0\0\0\0\0{ }").unwrap();
        let lock = std::fs::File::create(path("a.safetensors.lock")).unwrap();
        lock.lock().unwrap();
        assert_eq!(names(&intake.scan().unwrap()), ["half.safetensors"]);
        drop(lock);
        let scan = intake.scan().unwrap();
        assert_eq!(names(&scan), ["a.safetensors", "half.safetensors"]);
        std::fs::write(path("a.safetensors"), SHARD).unwrap();
        assert!(
            content(&scan.ready[0])
                .unwrap_err()
                .to_string()
                .contains("changed")
        );

        // Without patience a truncated file is refused at once, and only once.
        std::fs::write(path("half.safetensors"), &SHARD[..9]).unwrap();
        let mut hurried = Intake::new(&folder, false);
        assert_eq!(hurried.scan().unwrap().refused.len(), 1);
        assert_eq!(hurried.scan().unwrap().refused.len(), 0);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
