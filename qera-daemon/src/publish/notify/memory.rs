//! The memory of what servers were told: `OUT/notified.json`, beside the generations that it is
//! about. It is written before a server is told. So whichever side ends in between, no generation
//! is removed that a server may read, and none is tried again that was found to be worse.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::disk::clock::now;
use crate::disk::{list, read_if_there, rename, replace_json};
use crate::error::Fatal;
use crate::publish::generation_id::GenerationId;
use crate::publish::notify::canary::CanaryTrial;
use crate::publish::notify::still_read::{GRACE, StillRead};
use crate::publish::out_folder::number_of;

const VERSION: u32 = 1;
/// How many rejected generations are remembered.
const REJECTED_MAX: usize = 1000;

/// A generation that a canary showed to be worse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RejectedCanary {
    /// Which generation it was.
    pub(crate) generation: GenerationId,
    /// The server whose canary showed it.
    pub(crate) server: String,
    /// The losses that the canary showed.
    pub(crate) trial: CanaryTrial,
    /// The loss that it was compared with.
    pub(crate) best: f64,
}

/// The best generation that a server accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct BestCanary {
    generation: GenerationId,
    /// Digest of the text; for another text another generation may be the best.
    text: String,
    loss: f64,
}

/// What one server was told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct ServerRecord {
    /// The generation that it was last seen to serve.
    confirmed: Option<GenerationId>,
    /// The latest generation that was tried and may be served.
    accepted: Option<GenerationId>,
    /// Generations that the server may still read.
    told: BTreeSet<u64>,
    best: Option<BestCanary>,
}

/// The content of the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct NotifiedRecord {
    version: u32,
    rejected: Vec<RejectedCanary>,
    servers: BTreeMap<String, ServerRecord>,
}

/// The memory, shared by the threads that tell servers and by the one that prunes generations.
#[derive(Debug)]
pub(crate) struct NotifiedMemory {
    path: PathBuf,
    state: Mutex<State>,
    /// Where a file was moved that could not be understood.
    set_aside: Option<String>,
}

/// Why the file is not understood.
#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error("is damaged ({0})")]
    Damaged(#[from] serde_json::Error),
    #[error("is of version {0}, this program reads version {VERSION}")]
    Version(u32),
}

#[derive(Debug, Default)]
struct State {
    record: NotifiedRecord,
    /// The servers of this run. Other servers hold no generation back.
    keys: BTreeSet<String>,
    /// What each server served in this run.
    read: BTreeMap<String, StillRead>,
}

impl NotifiedMemory {
    /// Reads the memory. A file that is not understood is set aside, and then each server counts as
    /// told of every generation that is there.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn open(out: &Path, keys: impl Iterator<Item = String>) -> Result<Self, Fatal> {
        let path = out.join("notified.json");
        let keys: BTreeSet<String> = keys.collect();
        let bytes = if keys.is_empty() {
            None
        } else {
            read_if_there(&path)?
        };
        let mut not_understood = None;
        let record = match bytes.as_deref().map(parse) {
            None => NotifiedRecord::default(),
            Some(Ok(record)) => record,
            Some(Err(error)) => {
                not_understood = Some(error);
                NotifiedRecord::all_told(out, &keys)
            }
        };
        let state = Mutex::new(State {
            record,
            keys,
            read: BTreeMap::new(),
        });
        let mut memory = Self {
            path,
            state,
            set_aside: None,
        };
        if let Some(error) = not_understood {
            memory.set_aside = Some(memory.set_aside(&error)?);
        }
        Ok(memory)
    }

    /// The warning about a file that was not understood.
    pub(crate) fn warning(&self) -> Option<&str> {
        self.set_aside.as_deref()
    }

    fn set_aside(&self, error: &RecordError) -> Result<String, Fatal> {
        let aside = self.path.with_extension("json.set-aside");
        rename(&self.path, &aside).map_err(Fatal::io(&self.path, "set aside"))?;
        self.write(&self.lock().record)?;
        Ok(format!(
            "{} {error}: it is now {}, what canaries have shown is forgotten, and no generation is \
             removed before the servers serve a newer one",
            self.path.display(),
            aside.display()
        ))
    }

    /// Notes, before a server is told of a generation, that it is. The generation is kept until
    /// another one is served there.
    ///
    /// # Errors
    /// [`Fatal::Io`]; the server must not be told then.
    pub(crate) fn telling(&self, key: &str, generation: u64) -> Result<(), Fatal> {
        self.change(|record| record.of(key).told.insert(generation))
    }

    /// Notes that a canary was unloaded and its generation will not be served.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn withdrawn(&self, key: &str, generation: u64) -> Result<(), Fatal> {
        self.change(|record| {
            let of_server = record.of(key);
            if of_server.confirmed.as_ref().map(|of| of.number) != Some(generation) {
                of_server.told.remove(&generation);
            }
        })
    }

    /// Notes that a server has not taken a generation. Of the generations that it was told of and
    /// that are newer than the one it was seen to serve, it can then read only those in `kept`.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn not_taken(&self, key: &str, kept: &BTreeSet<u64>) -> Result<(), Fatal> {
        self.change(|record| {
            let of_server = record.of(key);
            // The one that it served before is released after a while.
            let confirmed = of_server.confirmed.as_ref().map(|of| of.number);
            of_server
                .told
                .retain(|number| kept.contains(number) || Some(*number) <= confirmed);
        })
    }

    /// Whether a server was told of a generation.
    #[must_use]
    pub(crate) fn was_told(&self, key: &str, generation: u64) -> bool {
        let state = self.lock();
        let of_server = state.record.servers.get(key);
        of_server.is_some_and(|of| {
            of.told.contains(&generation)
                || of.confirmed.as_ref().map(|of| of.number) == Some(generation)
        })
    }

    /// Notes that a generation may be served; `text` is the digest of a text that it was compared
    /// on.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn accepted(
        &self,
        key: &str,
        generation: &GenerationId,
        text: Option<&str>,
        trial: &CanaryTrial,
    ) -> Result<(), Fatal> {
        self.change(|record| {
            let of_server = record.of(key);
            of_server.accepted = Some(generation.clone());
            let Some(text) = text else {
                return;
            };
            let best = of_server.best.as_ref().filter(|best| best.text == text);
            if best.is_none_or(|best| trial.loss < best.loss) {
                of_server.best = Some(BestCanary {
                    generation: generation.clone(),
                    text: text.to_owned(),
                    loss: trial.loss,
                });
            }
        })
    }

    /// Notes that a generation is worse than the best one, so that no server is told of it again.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn reject(&self, rejected: RejectedCanary) -> Result<(), Fatal> {
        self.change(|record| {
            // Generations that are long gone from the disk are not told to anyone.
            let surplus = (record.rejected.len() + 1).saturating_sub(REJECTED_MAX);
            record.rejected.drain(..surplus);
            record.rejected.push(rejected);
        })
    }

    /// Notes that a server was seen to serve a generation. Returns whether that is new.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn confirm(&self, key: &str, generation: &GenerationId) -> Result<bool, Fatal> {
        let mut state = self.lock();
        let is_new = state.record.of(key).confirmed.as_ref() != Some(generation);
        let read = state.read.entry(key.to_owned()).or_default();
        read.begin(generation.number, now());
        drop(state);
        self.change(|record| {
            let of_server = record.of(key);
            of_server.told.insert(generation.number);
            of_server.accepted = Some(generation.clone());
            of_server.confirmed = Some(generation.clone());
        })?;
        Ok(is_new)
    }

    /// The generation that a server was last seen to serve.
    #[must_use]
    pub(crate) fn confirmed(&self, key: &str) -> Option<GenerationId> {
        self.lock().record.servers.get(key)?.confirmed.clone()
    }

    /// Whether a generation was tried on a server, and may be served.
    #[must_use]
    pub(crate) fn is_accepted(&self, key: &str, generation: &GenerationId) -> bool {
        let state = self.lock();
        let of_server = state.record.servers.get(key);
        of_server
            .is_some_and(|of| [&of.accepted, &of.confirmed].contains(&&Some(generation.clone())))
    }

    /// Whether a canary showed a generation to be worse.
    #[must_use]
    pub(crate) fn is_rejected(&self, generation: &GenerationId) -> bool {
        let state = self.lock();
        let mut rejected = state.record.rejected.iter();
        rejected.any(|of| of.generation == *generation)
    }

    /// The generations that a server's canary showed to be worse.
    #[must_use]
    pub(crate) fn rejected_by(&self, key: &str) -> Vec<u64> {
        let state = self.lock();
        let rejected = state.record.rejected.iter();
        let own = rejected.filter(|of| of.server == key);
        own.map(|of| of.generation.number).collect()
    }

    /// The loss of the best generation so far on a text.
    #[must_use]
    pub(crate) fn best(&self, key: &str, text: &str) -> Option<f64> {
        let state = self.lock();
        let best = state.record.servers.get(key)?.best.as_ref()?;
        (best.text == text).then_some(best.loss)
    }

    /// The generations that requests to a server may still be answered from, or `None` where that
    /// may be any.
    #[must_use]
    pub(crate) fn still_read(&self, key: &str) -> Option<BTreeSet<u64>> {
        self.lock().still_read(key, GRACE)
    }

    /// The generations that a server of this run may still read.
    #[must_use]
    pub(crate) fn held(&self) -> BTreeSet<u64> {
        self.lock().held(GRACE)
    }

    fn change<T>(&self, change: impl FnOnce(&mut NotifiedRecord) -> T) -> Result<(), Fatal> {
        let mut state = self.lock();
        let before = state.record.clone();
        change(&mut state.record);
        if state.record == before {
            return Ok(());
        }
        state.record.version = VERSION;
        self.write(&state.record)
            .inspect_err(|_| state.record = before)
    }

    /// Writes the file in one step: the old content is there until the new one is.
    fn write(&self, record: &NotifiedRecord) -> Result<(), Fatal> {
        replace_json(&self.path, record)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NotifiedRecord {
    /// The worst case where nothing is known: every server was told of every generation.
    fn all_told(out: &Path, keys: &BTreeSet<String>) -> Self {
        let paths = list(&out.join("generations")).unwrap_or_default();
        let numbers = paths.iter().filter_map(|path| number_of(path));
        let of_server = ServerRecord {
            told: numbers.collect(),
            ..ServerRecord::default()
        };
        let servers = keys.iter().map(|key| (key.clone(), of_server.clone()));
        Self {
            version: VERSION,
            rejected: Vec::new(),
            servers: servers.collect(),
        }
    }

    fn of(&mut self, key: &str) -> &mut ServerRecord {
        self.servers.entry(key.to_owned()).or_default()
    }
}

impl State {
    fn still_read(&self, key: &str, grace: Duration) -> Option<BTreeSet<u64>> {
        self.read.get(key)?.at(now(), grace)
    }

    fn held(&mut self, grace: Duration) -> BTreeSet<u64> {
        let mut held = BTreeSet::new();
        for key in self.keys.clone() {
            let still_read = self.still_read(&key, grace);
            let Some(of_server) = self.record.servers.get_mut(&key) else {
                continue;
            };
            let confirmed = of_server.confirmed.as_ref().map(|of| of.number);
            if let Some(read) = still_read {
                // Generations newer than the served one are being told.
                of_server.told.retain(|number| {
                    read.contains(number) || confirmed.is_none_or(|served| *number >= served)
                });
            }
            held.extend(&of_server.told);
            held.extend(confirmed);
        }
        held
    }
}

fn parse(bytes: &[u8]) -> Result<NotifiedRecord, RecordError> {
    let record: NotifiedRecord = serde_json::from_slice(bytes)?;
    if record.version != VERSION {
        return Err(RecordError::Version(record.version));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "http://a qera";

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("qera-notified-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn open(&self) -> NotifiedMemory {
            NotifiedMemory::open(&self.0, [KEY.to_owned()].into_iter()).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn id(number: u64) -> GenerationId {
        GenerationId {
            number,
            digest: format!("of {number}"),
        }
    }

    fn trial(loss: f64) -> CanaryTrial {
        CanaryTrial {
            loss,
            base_loss: 2.0,
            difference: 1.0,
            base_difference: 0.0,
        }
    }

    fn held(memory: &NotifiedMemory, grace: Duration) -> Vec<u64> {
        memory.lock().held(grace).into_iter().collect()
    }

    #[test]
    fn what_was_told_is_held_until_a_newer_one_was_served_for_a_while() {
        let folder = Folder::new("held");
        let memory = folder.open();
        assert!(held(&memory, GRACE).is_empty());
        memory.telling(KEY, 3).unwrap();
        assert_eq!(held(&memory, Duration::ZERO), [3]);
        assert!(memory.confirm(KEY, &id(3)).unwrap());
        assert!(!memory.confirm(KEY, &id(3)).unwrap());
        memory.telling(KEY, 5).unwrap();
        assert_eq!(held(&memory, GRACE), [3, 5]);
        assert!(memory.confirm(KEY, &id(5)).unwrap());
        assert_eq!(memory.still_read(KEY), None);
        assert_eq!(held(&memory, GRACE), [3, 5]);
        // After a restart it is unknown for how long the server has served it.
        drop(memory);
        let memory = folder.open();
        assert_eq!(held(&memory, Duration::ZERO), [3, 5]);
        assert!(!memory.confirm(KEY, &id(5)).unwrap());
        assert_eq!(held(&memory, GRACE), [3, 5]);
        assert_eq!(held(&memory, Duration::ZERO), [5]);
        // What a server of another run was told holds no generation back.
        let other = NotifiedMemory::open(&folder.0, ["other".to_owned()].into_iter()).unwrap();
        assert!(held(&other, GRACE).is_empty());
        let none = NotifiedMemory::open(&folder.0, core::iter::empty()).unwrap();
        assert!(held(&none, GRACE).is_empty());
    }

    #[test]
    fn a_canary_that_was_withdrawn_is_not_held_and_what_is_served_is() {
        let folder = Folder::new("withdrawn");
        let memory = folder.open();
        memory.confirm(KEY, &id(3)).unwrap();
        memory.telling(KEY, 4).unwrap();
        memory.withdrawn(KEY, 4).unwrap();
        memory.withdrawn(KEY, 3).unwrap();
        assert_eq!(held(&memory, GRACE), [3]);
    }

    #[test]
    fn of_those_that_are_not_taken_the_newest_is_held() {
        let folder = Folder::new("not-taken");
        let memory = folder.open();
        for number in [1, 2] {
            memory.telling(KEY, number).unwrap();
            memory.not_taken(KEY, &[number].into()).unwrap();
        }
        assert_eq!(held(&memory, GRACE), [2]);
        memory.confirm(KEY, &id(3)).unwrap();
        memory.confirm(KEY, &id(4)).unwrap();
        for number in 5..9 {
            memory.telling(KEY, number).unwrap();
            // The server shows generation 6, which it took although it was not seen in time.
            memory.not_taken(KEY, &[6, number].into()).unwrap();
        }
        assert_eq!(held(&memory, GRACE), [2, 3, 4, 6, 8]);
        assert!(memory.was_told(KEY, 8) && memory.was_told(KEY, 4));
        assert!(!memory.was_told(KEY, 7) && !memory.was_told("other", 8));
    }

    #[test]
    fn verdicts_survive_and_are_of_one_content_and_one_text() {
        let folder = Folder::new("verdicts");
        let memory = folder.open();
        memory
            .accepted(KEY, &id(1), Some("a text"), &trial(1.0))
            .unwrap();
        memory
            .accepted(KEY, &id(2), Some("a text"), &trial(1.005))
            .unwrap();
        memory.accepted(KEY, &id(3), None, &trial(0.5)).unwrap();
        let rejected = RejectedCanary {
            generation: id(4),
            server: KEY.into(),
            trial: trial(1.5),
            best: 1.0,
        };
        memory.reject(rejected).unwrap();
        drop(memory);
        let memory = folder.open();
        assert_eq!(memory.best(KEY, "a text"), Some(1.0));
        assert_eq!(memory.best(KEY, "another"), None);
        assert!(memory.is_accepted(KEY, &id(3)) && !memory.is_accepted(KEY, &id(2)));
        assert_eq!(memory.rejected_by(KEY), [4]);
        assert!(memory.is_rejected(&id(4)) && !memory.is_rejected(&id(3)));
        let begun_anew = GenerationId {
            digest: "other".into(),
            ..id(4)
        };
        assert!(!memory.is_rejected(&begun_anew));
        // Another text begins another comparison.
        memory
            .accepted(KEY, &id(5), Some("another"), &trial(9.0))
            .unwrap();
        assert_eq!(memory.best(KEY, "another"), Some(9.0));
    }

    #[test]
    fn a_file_that_is_not_understood_is_set_aside_and_all_that_is_there_is_held() {
        let folder = Folder::new("damage");
        for number in ["000003", "000007", "not-a-number"] {
            std::fs::create_dir_all(folder.0.join("generations").join(number)).unwrap();
        }
        let other = r#"{"version":2,"rejected":[],"servers":{}}"#;
        for (text, words) in [("{", "is damaged"), (other, "is of version 2")] {
            std::fs::write(folder.0.join("notified.json"), text).unwrap();
            let memory = folder.open();
            let said = memory.warning().unwrap();
            assert!(
                said.contains(words) && said.contains(".set-aside,"),
                "{said}"
            );
            let aside = std::fs::read_to_string(folder.0.join("notified.json.set-aside"));
            assert_eq!(aside.unwrap(), text);
            assert_eq!(held(&memory, Duration::ZERO), [3, 7]);
            assert!(memory.was_told(KEY, 3));
            // The next run knows this, too.
            drop(memory);
            let memory = folder.open();
            assert_eq!(memory.warning(), None);
            assert_eq!(held(&memory, Duration::ZERO), [3, 7]);
        }
    }
}
