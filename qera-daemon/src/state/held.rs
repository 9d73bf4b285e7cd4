//! Which files of the watched folder the statistics hold already, read beside whoever works with the
//! state.

use std::collections::HashMap;
use std::path::Path;

use crate::disk::identity::Identity;
use crate::disk::read_if_there;
use crate::error::Fatal;
use crate::state::journal::Lines;
use crate::state::snapshot::{Index, list};

/// Files as they were when their rows were folded, by name.
#[derive(Debug, Default)]
pub(crate) struct HeldFiles(HashMap<String, Identity>);

impl HeldFiles {
    /// Those of the newest snapshot that has an index; none where the journal is damaged, which is
    /// told where it is opened.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn read(state: &Path) -> Result<Self, Fatal> {
        let snapshots = list(state)?;
        let indices = snapshots.iter().map(|of| Index::read(&of.path));
        let position = indices.flatten().next().map(|i| i.gathered.position);
        let journal = read_if_there(&state.join("journal"))?;
        let lines = Lines::parse(&journal.unwrap_or_default()).unwrap_or_default();
        let records = lines.records.into_iter();
        let held = records.filter(|record| position.is_some_and(|p| record.number <= p));
        Ok(Self(held.map(|r| (r.name, r.file)).collect()))
    }

    /// Whether this is one of them. A copy or a touched file is not: only its content would tell.
    pub(crate) fn has(&self, name: &str, file: Identity) -> bool {
        self.0.get(name) == Some(&file)
    }
}
