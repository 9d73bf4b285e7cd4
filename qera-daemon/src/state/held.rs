//! Which files of the watched folder the statistics hold already, read beside whoever works with the
//! state.

use std::collections::HashMap;
use std::path::Path;

use crate::disk::identity::Identity;
use crate::disk::read_if_there;
use crate::error::Fatal;
use crate::state::damage::damage_of;
use crate::state::journal::Lines;
use crate::state::snapshot::{Index, Snapshot, list};

/// Files as they were when their rows were folded, by name.
#[derive(Debug, Default)]
pub(crate) struct HeldFiles(HashMap<String, Identity>);

impl HeldFiles {
    /// Those of the newest snapshot that has an index; none where the journal is damaged, which is
    /// told where it is opened. What cannot be read ends the run, unless its loss is accepted.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn read(state: &Path, accept_loss: bool) -> Result<Self, Fatal> {
        let mut position = None;
        for Snapshot { path, .. } in list(state)? {
            match Index::read(&path).map_err(|unread| unread.given_up(accept_loss)) {
                Ok(index) => {
                    position = Some(index.gathered.position);
                    break;
                }
                Err(unread) => damage_of(unread)?,
            };
        }
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
