//! What a run goes on from: the newest snapshot that fits the journal, and older snapshots for
//! those sites whose files in it are damaged. The caller holds the state's lock, so that nobody
//! replaces a snapshot meanwhile.

use std::path::Path;

use crate::error::Fatal;
use crate::state::damage::{Damage, Unread, damage_of};
use crate::state::journal::Journal;
use crate::state::restore::{DamagedSnapshot, Expected, Restored, SiteBehind, read_site};
use crate::state::snapshot::{Index, Snapshot, list};

/// The conditions under which a run's snapshots are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fallback<'a> {
    /// The journal of accepted shards.
    pub(crate) journal: &'a Journal,
    /// Today's sites.
    pub(crate) expected: &'a Expected<'a>,
    /// Whether files that cannot be read are given up (`--accept-loss`).
    pub(crate) accept_loss: bool,
}

impl Fallback<'_> {
    /// Reads what the state holds, and changes nothing. The caller decides whether it is enough.
    ///
    /// # Errors
    /// [`Fatal::Io`] for what cannot be read, [`Fatal::StateRefused`] for another version.
    pub(crate) fn restore(&self, state: &Path) -> Result<Restored, Fatal> {
        let mut damaged = Vec::new();
        let mut found: Option<Restored> = None;
        // Sites that no snapshot has whole, of those read so far.
        let mut lacking: Vec<SiteBehind> = Vec::new();
        for Snapshot { path, .. } in list(state)? {
            let index = match self.index(&path) {
                Ok(index) => index,
                Err(unread) => {
                    let what = damage_of(unread)?;
                    // A damaged snapshot that is older than the one in use is not needed, and is
                    // told when it is.
                    if found.is_none() {
                        damaged.push(DamagedSnapshot { path, what });
                    }
                    continue;
                }
            };
            match &mut found {
                None => {
                    let restored = Restored::of_index(&index, self.expected);
                    let restored = found.insert(restored);
                    lacking = self.read_all(&path, &index, restored)?;
                }
                Some(restored) => self.read_lacking(&path, &index, restored, &mut lacking)?,
            }
            if lacking.is_empty() {
                break;
            }
        }
        let mut restored = found.unwrap_or_default();
        restored.behind.append(&mut lacking);
        restored.damaged = damaged;
        Ok(restored)
    }

    fn index(&self, path: &Path) -> Result<Index, Unread> {
        let index = Index::read(path).map_err(|unread| unread.given_up(self.accept_loss))?;
        if self.journal.gathered(index.gathered.position) != index.gathered {
            return Err(Damage("it holds other shards than the journal".into()).into());
        }
        Ok(index)
    }

    /// Reads every site of a snapshot; returns those whose files are damaged.
    fn read_all(
        &self,
        path: &Path,
        index: &Index,
        restored: &mut Restored,
    ) -> Result<Vec<SiteBehind>, Fatal> {
        let mut lacking = Vec::new();
        for saved in &index.sites {
            let Some(site) = self.expected.site_of(saved, index.named) else {
                continue;
            };
            let read = read_site(path, index, saved, site, self.expected);
            match read.map_err(|unread| unread.given_up(self.accept_loss)) {
                Ok(state) => restored.sites[site] = Some(state),
                Err(unread) => lacking.push(SiteBehind {
                    site,
                    what: damage_of(unread)?,
                    position: 0,
                }),
            }
        }
        Ok(lacking)
    }

    /// Reads those sites that newer snapshots do not have whole. A site that an index does not name
    /// had no rows at that time.
    fn read_lacking(
        &self,
        path: &Path,
        index: &Index,
        restored: &mut Restored,
        lacking: &mut Vec<SiteBehind>,
    ) -> Result<(), Fatal> {
        let position = index.gathered.position;
        for behind in core::mem::take(lacking) {
            let site = behind.site;
            let mut saved = index.sites.iter();
            let saved = saved.find(|of| self.expected.site_of(of, index.named) == Some(site));
            let read = saved.map(|saved| read_site(path, index, saved, site, self.expected));
            let read = read.transpose();
            match read.map_err(|unread| unread.given_up(self.accept_loss)) {
                Ok(state) => {
                    restored.sites[site] = state;
                    restored.behind.push(SiteBehind { position, ..behind });
                }
                Err(unread) => {
                    damage_of(unread)?;
                    lacking.push(behind);
                }
            }
        }
        Ok(())
    }
}
