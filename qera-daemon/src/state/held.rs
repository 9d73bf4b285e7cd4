//! Which files of the watched folder the statistics hold already. This is read while another
//! process may work with the state.

use std::collections::HashSet;
use std::path::Path;

use crate::disk::identity::Identity;
use crate::disk::read_if_there;
use crate::error::Fatal;
use crate::state::briefs::{self, file_digest};
use crate::state::damage::damage_of;
use crate::state::journal::Lines;
use crate::state::snapshot::{Index, Snapshot, list};

/// The number of the last shard in the newest snapshot whose index can be read; `None` where there
/// is none. An index that the disk does not give ends the run, unless its loss is accepted.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn newest_position(state: &Path, accept_loss: bool) -> Result<Option<u64>, Fatal> {
    for Snapshot { path, .. } in list(state)? {
        match Index::read(&path).map_err(|unread| unread.given_up(accept_loss)) {
            Ok(index) => return Ok(Some(index.gathered.position)),
            Err(unread) => drop(damage_of(unread)?),
        }
    }
    Ok(None)
}

/// Digests of the files whose rows were folded, as the files were then.
#[derive(Debug, Default)]
pub(crate) struct HeldFiles(HashSet<u64>);

impl HeldFiles {
    /// Reads the files of the newest snapshot that has an index. None are known where the journal
    /// is damaged, which is told where the journal is opened. What the disk does not give ends the
    /// run, unless its loss is accepted.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn read(state: &Path, accept_loss: bool) -> Result<Self, Fatal> {
        let position = newest_position(state, accept_loss)?;
        let journal = read_if_there(&state.join("journal"))?;
        let briefs = briefs::read(state)?;
        let lines = Lines::parse(&journal.unwrap_or_default(), briefs.len() as u64);
        let records = lines.records.into_iter();
        let held = records.filter(|record| position.is_some_and(|p| record.number <= p));
        let held = held.map(|record| file_digest(&record.name, record.file));
        let briefs = briefs.iter().filter(|of| position.is_some() && of.counts());
        Ok(Self(briefs.map(|brief| brief.file).chain(held).collect()))
    }

    /// Whether this file is one of them. A copy of one, or one that was touched since, is not: only
    /// its content would tell.
    pub(crate) fn has(&self, name: &str, file: Identity) -> bool {
        self.0.contains(&file_digest(name, file))
    }
}
