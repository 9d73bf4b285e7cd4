//! What a disk is found to be after its process is gone.
//!
//! After a kill everything that was written is there, as the system goes on. After a loss of power
//! a file has the bytes that were synced last or, in any part, later ones or none; a folder has the
//! names that were synced last, and any of the later changes, each whole or not at all. Names and
//! bytes know nothing of each other: a name may be there whose bytes are not. A move between two
//! folders may be found done by half, with both names, but never with none.

use std::collections::{BTreeMap, BTreeSet};

use super::image::{Image, ROOT_INODE};
use super::node::{Content, FileContent, FolderContent, NameStep};
use crate::trials::draw::Draw;

/// How a process went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Killed; the machine goes on.
    Kill,
    /// The machine lost power.
    Power,
}

/// How much of what was not synced is found: all of these happen.
#[derive(Clone, Copy)]
enum Luck {
    Nothing,
    Everything,
    Some,
}

impl Luck {
    fn holds(self, draw: &mut Draw) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Some => draw.once_in(2),
        }
    }
}

impl Image {
    /// What a new process finds after the cut.
    pub(crate) fn after(mut self, cut: Cut, draw: &mut Draw) -> Self {
        for node in self.nodes.values_mut() {
            node.is_locked = false;
        }
        if cut == Cut::Kill {
            return self;
        }
        let [names, bytes] =
            [0, 1].map(|_| *draw.of(&[Luck::Nothing, Luck::Everything, Luck::Some, Luck::Some]));
        self.lose_names(names, draw);
        for node in self.nodes.values_mut() {
            if let Content::File(file) = &mut node.content {
                file.lose_bytes(bytes, draw);
            }
        }
        self.forget_unnamed();
        self.settle();
        self
    }

    /// Everything is durable.
    pub(super) fn settle(&mut self) {
        for node in self.nodes.values_mut() {
            match &mut node.content {
                Content::File(file) => file.durable.clone_from(&file.bytes),
                Content::Folder(folder) => {
                    folder.durable.clone_from(&folder.names);
                    folder.changes.clear();
                }
                Content::Link(_) => {}
            }
        }
    }

    /// Makes what is open under a number durable: a file's bytes, not its name; a folder's names.
    pub(super) fn sync(&mut self, inode: u64) -> std::io::Result<()> {
        self.node(inode)?;
        let mut moved = BTreeSet::new();
        match self.nodes.get_mut(&inode).map(|node| &mut node.content) {
            Some(Content::File(file)) => file.durable.clone_from(&file.bytes),
            Some(Content::Folder(folder)) => {
                folder.durable.clone_from(&folder.names);
                let away = folder.changes.drain(..);
                let away = away.filter(|of| matches!(of.what, NameStep::MoveAway(_)));
                moved.extend(away.map(|of| of.number));
            }
            _ => {}
        }
        // The other half of what was moved away is durable with this one.
        for folder in self.folders_mut() {
            let settled: Vec<_> = folder
                .changes
                .extract_if(.., |of| moved.contains(&of.number))
                .collect();
            for change in settled {
                change.what.take(&mut folder.durable);
            }
        }
        Ok(())
    }

    fn folders_mut(&mut self) -> impl Iterator<Item = &mut FolderContent> {
        let contents = self.nodes.values_mut().map(|node| &mut node.content);
        contents.filter_map(|content| match content {
            Content::Folder(folder) => Some(folder),
            _ => None,
        })
    }

    fn lose_names(&mut self, luck: Luck, draw: &mut Draw) {
        // A half that takes a name away holds only where the other one does, or is durable.
        let mut waiting = BTreeMap::new();
        for folder in self.folders_mut() {
            for change in &folder.changes {
                if !matches!(change.what, NameStep::MoveAway(_)) {
                    waiting.insert(change.number, luck.holds(draw));
                }
            }
        }
        for folder in self.folders_mut() {
            let mut names = core::mem::take(&mut folder.durable);
            for change in &folder.changes {
                let other_half = waiting.get(&change.number).copied();
                let holds = match change.what {
                    NameStep::MoveAway(_) => other_half.unwrap_or(true) && luck.holds(draw),
                    _ => other_half.unwrap_or(false),
                };
                if holds {
                    change.what.take(&mut names);
                }
            }
            folder.names = names;
        }
    }

    /// Drops what no name leads to.
    fn forget_unnamed(&mut self) {
        let mut named = BTreeSet::new();
        let mut next = vec![ROOT_INODE];
        while let Some(inode) = next.pop() {
            if named.insert(inode)
                && let Some(Content::Folder(of)) = self.nodes.get(&inode).map(|node| &node.content)
            {
                next.extend(of.names.values());
            }
        }
        self.nodes.retain(|inode, _| named.contains(inode));
    }
}

impl FileContent {
    fn lose_bytes(&mut self, luck: Luck, draw: &mut Draw) {
        if self.bytes == self.durable {
            return;
        }
        let keeps_length = luck.holds(draw);
        let length = if keeps_length {
            self.bytes.len()
        } else {
            self.durable.len()
        };
        let mut found = vec![0; length];
        // In pieces, as a disk writes sectors. Bytes that were never synced may turn into zeros.
        for (index, piece) in found.chunks_mut(64).enumerate() {
            let start = index * 64;
            let source = if luck.holds(draw) {
                &self.bytes
            } else {
                &self.durable
            };
            let from = source.get(start..).unwrap_or_default();
            let count = from.len().min(piece.len());
            piece[..count].copy_from_slice(&from[..count]);
        }
        self.bytes = found;
    }
}
