//! Reading a state back: the newest snapshot that is whole.

use std::path::{Path, PathBuf};

use crate::calibrate::aside::Aside;
use crate::calibrate::site::SiteStatistics;
use crate::error::Fatal;
use crate::judge::progress::SiteProgress;
use crate::settings::name_map::NameMap;
use crate::state::damage::{Damage, Unread, damage_of};
use crate::state::journal::Gathered;
use crate::state::progress_file::{ExpectedProgress, LayerSize, SavedProgress, read_progress};
use crate::state::snapshot::{Index, SavedSite, Snapshot, list};
use crate::state::statistics_file::{ExpectedStatistics, read_statistics};
use crate::weights::sites::Sites;

/// How often a reader beside a running daemon looks again when the snapshot that it reads is
/// replaced.
const ATTEMPTS: usize = 3;

/// A saved site.
#[derive(Debug)]
pub(crate) struct SiteState {
    /// The site's statistics; with them the rows kept aside, where the progress was read, too.
    pub(crate) statistics: SiteStatistics,
    /// The site's progress; `None` where it belongs to other settings.
    pub(crate) progress: Option<SiteProgress>,
}

/// What a snapshot gives back.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// The shards that it is made of.
    pub(crate) gathered: Gathered,
    /// Fingerprint of the checkpoint and settings that the progress belongs to.
    pub(crate) solved_for: Option<String>,
    /// Saved sites by the index of the site; `None` for a site that was not gathered.
    pub(crate) sites: Vec<Option<SiteState>>,
    /// Newer snapshots, which are damaged and not used.
    pub(crate) damaged: Vec<DamagedSnapshot>,
    /// Sites whose files are damaged in the snapshot that is used.
    pub(crate) behind: Vec<SiteBehind>,
}

/// A site that has fewer shards than the others, because only an older snapshot has it whole.
#[derive(Debug, Clone)]
pub(crate) struct SiteBehind {
    /// Index of the site.
    pub(crate) site: usize,
    /// What is wrong with the snapshot's files.
    pub(crate) what: Damage,
    /// Number of the last shard that the site has; 0 where no snapshot has it whole.
    pub(crate) position: u64,
}

/// A snapshot that is not whole.
#[derive(Debug, Clone)]
pub(crate) struct DamagedSnapshot {
    /// The folder of the snapshot.
    pub(crate) path: PathBuf,
    /// What is wrong with the snapshot.
    pub(crate) what: Damage,
}

impl Restored {
    /// The number of the shard after which the journal's shards are folded again, if only for one
    /// site.
    #[must_use]
    pub(crate) fn folds_again_from(&self) -> u64 {
        let behind = self.behind.iter().map(|of| of.position);
        behind.fold(self.gathered.position, u64::min)
    }

    /// Whether a site begins from nothing, because no snapshot has it whole.
    #[must_use]
    pub(crate) fn begins_from_nothing(&self) -> bool {
        let nothing = self.behind.iter().any(|of| of.position == 0);
        nothing || !self.damaged.is_empty() && self.gathered.position == 0
    }

    /// Drops the corrections and the evidence of sites whose W~ has to be made again, since they
    /// belonged to the old W~.
    pub(crate) fn begin_without_corrections(&mut self, unrounded: impl Fn(usize) -> bool) {
        for (site, state) in self.sites.iter_mut().enumerate() {
            let progress = state.as_mut().and_then(|state| state.progress.as_mut());
            if let Some(progress) = progress.filter(|_| unrounded(site)) {
                progress.begin_without_corrections();
            }
        }
    }

    /// Opens every closed site for a run that leaves no rows out.
    pub(crate) fn open_unless(&mut self, closes: bool) {
        if closes {
            return;
        }
        for state in self.sites.iter_mut().flatten() {
            if let Some(progress) = &mut state.progress {
                if progress.is_closed() {
                    state.statistics.begin_folding_anew(false);
                }
                progress.open();
            }
        }
    }
}

/// What a snapshot has to fit to.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    /// Today's sites.
    pub(crate) sites: &'a Sites,
    /// The names in the checkpoint of what was recorded.
    pub(crate) names: Option<&'a NameMap>,
    /// Fingerprint of checkpoint and settings; progress that belongs to others is not read.
    pub(crate) solved_for: Option<&'a str>,
    /// The layers of each site.
    pub(crate) layers: Vec<Vec<LayerSize>>,
    /// The share of rows that each site keeps aside.
    pub(crate) scored_shares: Vec<f64>,
}

/// Reads the newest whole snapshot while another process may work with the state.
///
/// # Errors
/// [`Fatal::StateRefused`] when there are snapshots and none is whole; [`Fatal::Io`].
pub(crate) fn restore(state: &Path, expected: &Expected<'_>) -> Result<Restored, Fatal> {
    let newest = newest_whole(state, |path| read(path, expected))?;
    Ok(newest.map_or_else(Restored::default, |found| Restored {
        damaged: found.damaged,
        ..found.value
    }))
}

/// The content of the newest whole snapshot.
#[derive(Debug)]
pub(crate) struct Newest<T> {
    /// The value that was read.
    pub(crate) value: T,
    /// Newer snapshots, which are damaged.
    pub(crate) damaged: Vec<DamagedSnapshot>,
}

/// Reads the newest snapshot that `read` finds whole; `None` where there is no snapshot at all.
/// Another process may replace a snapshot meanwhile.
///
/// # Errors
/// [`Fatal::StateRefused`] when there are snapshots and none is whole; [`Fatal::Io`].
pub(crate) fn newest_whole<T>(
    state: &Path,
    read: impl Fn(&Path) -> Result<T, Unread>,
) -> Result<Option<Newest<T>>, Fatal> {
    let mut damaged = Vec::new();
    for _ in 0..ATTEMPTS {
        damaged.clear();
        let snapshots = list(state)?;
        if snapshots.is_empty() {
            return Ok(None);
        }
        for Snapshot { path, .. } in snapshots {
            match read(&path) {
                Ok(value) => return Ok(Some(Newest { value, damaged })),
                Err(unread) => {
                    let what = damage_of(unread)?;
                    damaged.push(DamagedSnapshot { path, what });
                }
            }
        }
    }
    Err(Fatal::StateRefused {
        path: state.to_path_buf(),
        reason: format!(
            "no snapshot is whole ({}); remove {} to fold the shards that are still in the folder again",
            list_of(&damaged),
            state.join("snapshots").display()
        ),
    })
}

/// A list of these snapshots with what is wrong with each.
#[must_use]
pub(crate) fn list_of(damaged: &[DamagedSnapshot]) -> String {
    let parts = damaged
        .iter()
        .map(|of| format!("{}: {}", of.path.display(), of.what));
    parts.collect::<Vec<_>>().join("; ")
}

/// One snapshot, every site of it whole.
fn read(path: &Path, expected: &Expected<'_>) -> Result<Restored, Unread> {
    let index = Index::read(path)?;
    let mut restored = Restored::of_index(&index, expected);
    for saved in &index.sites {
        if let Some(site) = expected.site_of(saved, index.named) {
            restored.sites[site] = Some(read_site(path, &index, saved, site, expected)?);
        }
    }
    Ok(restored)
}

impl Restored {
    /// What an index says about a snapshot, before any site is read.
    #[must_use]
    pub(crate) fn of_index(index: &Index, expected: &Expected<'_>) -> Self {
        Self {
            gathered: index.gathered.clone(),
            solved_for: index.solved_for.clone(),
            sites: expected.sites.sites.iter().map(|_| None).collect(),
            ..Self::default()
        }
    }
}

impl Expected<'_> {
    /// The site of today that was saved under this record; `None` where `solve` is not asked for
    /// its modules. `named` says whether the snapshot has the checkpoint's names.
    #[must_use]
    pub(crate) fn site_of(&self, saved: &SavedSite, named: bool) -> Option<usize> {
        let names = self.names.filter(|_| !named);
        self.sites.saved_as(&saved.key, names)
    }
}

/// Reads one site of a snapshot, with its progress where that belongs to this checkpoint and these
/// settings.
///
/// # Errors
/// [`Unread`].
pub(crate) fn read_site(
    snapshot: &Path,
    index: &Index,
    saved: &SavedSite,
    site: usize,
    expected: &Expected<'_>,
) -> Result<SiteState, Unread> {
    let current = index.solved_for.as_deref() == expected.solved_for;
    let in_features = expected.sites.sites[site].in_features;
    let scored_share = expected.scored_shares[site];
    let of = ExpectedStatistics {
        key: &saved.key,
        in_features,
        second_moment: expected.sites.sites[site].second_moment,
        sketch: expected.sites.sites[site].sketch.as_ref(),
    };
    let mut statistics = read_statistics(&saved.statistics_file(snapshot), &saved.statistics, of)
        .map_err(|unread| match unread {
        Unread::Damaged(what) => Unread::Damaged(Damage(format!(
            "the statistics of {} are damaged: {what}",
            saved.key
        ))),
        other => other,
    })?;
    statistics.aside = Aside::new(in_features, scored_share);
    let mut state = SiteState {
        statistics,
        progress: None,
    };
    if let Some(hash) = saved.progress.as_ref().filter(|_| current) {
        let of = ExpectedProgress {
            key: &saved.key,
            layers: &expected.layers[site],
            scored_share,
        };
        match read_progress(&saved.progress_file(snapshot), hash, of) {
            Ok(SavedProgress { progress, aside }) => {
                state.statistics.aside = aside;
                state.progress = Some(progress);
            }
            // The evidence begins anew, because the statistics are worth more.
            Err(Unread::Damaged(_)) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(state)
}
