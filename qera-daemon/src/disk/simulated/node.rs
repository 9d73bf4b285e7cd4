//! What a disk consists of.

use core::fmt;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// A file, a folder or a symlink.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) content: Content,
    pub(super) mode: u32,
    /// When the node was last modified, by the disk's own clock.
    pub(super) modified: i64,
    pub(super) is_locked: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    File(FileContent),
    Folder(FolderContent),
    Link(PathBuf),
}

/// What a file holds, and what of that survives.
#[derive(Clone, Default)]
pub(super) struct FileContent {
    pub(super) bytes: Vec<u8>,
    /// The bytes as they were when the file was last synced.
    pub(super) durable: Vec<u8>,
}

/// By what it holds, not in full.
impl fmt::Debug for FileContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bytes, durable] = [&self.bytes, &self.durable].map(|of| blake3::hash(of));
        write!(f, "{bytes}, {durable}")
    }
}

/// The names in a folder, and which of them survive.
#[derive(Debug, Clone, Default)]
pub(super) struct FolderContent {
    pub(super) names: BTreeMap<OsString, u64>,
    /// The names as they were when the folder was last synced.
    pub(super) durable: BTreeMap<OsString, u64>,
    /// The changes made since then, in order.
    pub(super) changes: Vec<NameChange>,
}

/// A change of one folder's names.
#[derive(Debug, Clone)]
pub(super) struct NameChange {
    /// Which: the two halves of a move from one folder to another have the same.
    pub(super) number: u64,
    pub(super) what: NameStep,
}

#[derive(Debug, Clone)]
pub(super) enum NameStep {
    Put(OsString, u64),
    Remove(OsString),
    /// Within the folder, in one step.
    Rename {
        from: OsString,
        to: OsString,
        inode: u64,
    },
    /// The half of a move that takes the name away; never without the other half.
    MoveAway(OsString),
}

impl NameStep {
    /// Does it.
    pub(super) fn take(&self, names: &mut BTreeMap<OsString, u64>) {
        match self {
            Self::Put(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Remove(name) | Self::MoveAway(name) => {
                names.remove(name);
            }
            Self::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

impl FolderContent {
    /// Changes a name.
    pub(super) fn change(&mut self, number: u64, what: NameStep) {
        what.take(&mut self.names);
        self.changes.push(NameChange { number, what });
    }
}
