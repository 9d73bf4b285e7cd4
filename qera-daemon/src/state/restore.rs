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
use crate::state::{SitesRecord, SolvedModel};
use crate::weights::sites::{SiteRecord, Sites};

/// How often a reader beside a running daemon looks again when the snapshot that it reads is
/// replaced.
const ATTEMPTS: usize = 3;

/// One site, as it was.
#[derive(Debug)]
pub(crate) struct SiteState {
    /// Its statistics, with the rows kept aside where the progress is there.
    pub(crate) statistics: SiteStatistics,
    /// What its layers carry on; `None` where it belongs to other settings.
    pub(crate) progress: Option<SiteProgress>,
}

/// What was saved.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// Which shards it is made of.
    pub(crate) gathered: Gathered,
    /// Fingerprint of what the progress belongs to.
    pub(crate) solved_for: Option<String>,
    /// By the index of the site; `None` for one that was not gathered.
    pub(crate) sites: Vec<Option<SiteState>>,
    /// Newer snapshots that are not used.
    pub(crate) damaged: Vec<DamagedSnapshot>,
    /// Sites whose files in the snapshot that is used are damaged.
    pub(crate) behind: Vec<SiteBehind>,
}

/// A site that has fewer shards than the others: what a snapshot before holds of it.
#[derive(Debug, Clone)]
pub(crate) struct SiteBehind {
    /// Index of the site.
    pub(crate) site: usize,
    /// What is wrong with its files.
    pub(crate) what: Damage,
    /// The last shard that it has; 0 where no snapshot has anything of it.
    pub(crate) position: u64,
}

/// A snapshot that is not whole.
#[derive(Debug, Clone)]
pub(crate) struct DamagedSnapshot {
    /// Its folder.
    pub(crate) path: PathBuf,
    /// What is wrong with it.
    pub(crate) what: Damage,
}

impl Restored {
    /// Shards of the journal beyond this one are folded again, be it for one site.
    #[must_use]
    pub(crate) fn folds_again_from(&self) -> u64 {
        let behind = self.behind.iter().map(|of| of.position);
        behind.fold(self.gathered.position, u64::min)
    }

    /// Whether a site, or all, begin from nothing, because no snapshot has it whole.
    #[must_use]
    pub(crate) fn begins_from_nothing(&self) -> bool {
        let nothing = self.behind.iter().any(|of| of.position == 0);
        nothing || !self.damaged.is_empty() && self.gathered.position == 0
    }

    /// Drops the corrections and the evidence of sites that have to be rounded again: they were of
    /// another W~.
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

/// How a site of today is to be read.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    /// Today's sites.
    pub(crate) sites: &'a Sites,
    /// What recorded names are in the checkpoint.
    pub(crate) names: Option<&'a NameMap>,
    /// Fingerprint of checkpoint and settings; progress of others is left.
    pub(crate) solved_for: Option<&'a str>,
    /// The layers of each site.
    pub(crate) layers: Vec<Vec<LayerSize>>,
    /// Rows kept aside, by site.
    pub(crate) scored_shares: Vec<f64>,
}

/// Reads the newest whole snapshot, beside whoever works with the state.
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

/// What was read of the newest snapshot that is whole.
#[derive(Debug)]
pub(crate) struct Newest<T> {
    /// What was read.
    pub(crate) value: T,
    /// Newer snapshots that are not whole.
    pub(crate) damaged: Vec<DamagedSnapshot>,
}

/// Reads the newest snapshot that `read` finds whole; `None` where there is none at all. Whoever
/// works with the state may replace one meanwhile.
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

/// Each snapshot, and what is wrong with it.
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
    /// What an index says, and no site yet.
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
    /// Which of today's sites was saved so; others are of modules that `solve` is not asked for.
    /// `named` says whether the snapshot knows the checkpoint's names.
    #[must_use]
    pub(crate) fn site_of(&self, saved: &SavedSite, named: bool) -> Option<usize> {
        let names = self.names.filter(|_| !named);
        self.sites.saved_as(&saved.key, names)
    }
}

/// One site of a snapshot; its progress where it belongs to this checkpoint and these settings.
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
            // Evidence begins anew; the statistics are worth more.
            Err(Unread::Damaged(_)) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(state)
}

/// Whether what a state holds of corrections and evidence belongs to this checkpoint. One of
/// statistics alone takes the first that comes.
///
/// # Errors
/// [`Fatal::StateRefused`] with both fingerprints.
pub(crate) fn check_model(
    state: &Path,
    saved: &SitesRecord,
    own: &SolvedModel,
) -> Result<(), Fatal> {
    let saved = &saved.model;
    let sides = [
        ("checkpoint", &saved.checkpoint, &own.checkpoint),
        ("--quantized file", &saved.quantized, &own.quantized),
    ];
    for (what, found, own) in sides {
        if let (Some(found), Some(own)) = (found, own)
            && found != own
        {
            return Err(Fatal::StateRefused {
                path: state.to_path_buf(),
                reason: format!(
                    "belongs to another {what} ({found}, this one is {own}): choose another --state, or say --new-checkpoint to keep its statistics and begin its evidence anew"
                ),
            });
        }
    }
    Ok(())
}

/// Whether a run may go on with the rows that were held out and kept aside.
///
/// # Errors
/// [`Fatal::StateRefused`] with both bounds.
pub(crate) fn check_window_memory(
    state: &Path,
    saved: &SitesRecord,
    own: u64,
) -> Result<(), Fatal> {
    match saved.window_memory {
        Some(found) if found != own => Err(Fatal::StateRefused {
            path: state.to_path_buf(),
            reason: format!(
                "was begun with --window-memory {found}, this run's is {own}: give it the same, or \
                 choose another --state"
            ),
        }),
        _ => Ok(()),
    }
}

/// What is asked of a state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// Whether the method needs R.
    pub(crate) needs_r: bool,
    /// Whether rows will be added to it.
    pub(crate) continues: bool,
}

/// Whether a run on today's sites may be solved from what was saved, or continue it.
///
/// # Errors
/// [`Fatal::StateRefused`] naming the first site that differs, or that R was not gathered and is
/// asked for.
pub(crate) fn check_sites(
    state: &Path,
    saved: &SitesRecord,
    sites: &Sites,
    asked: Asked,
) -> Result<(), Fatal> {
    let refuse = |reason| {
        Err(Fatal::StateRefused {
            path: state.to_path_buf(),
            reason,
        })
    };
    if asked.needs_r && !saved.second_moment.is_whole() {
        return refuse(
            "was gathered without R, which --method exact needs: choose another --state, or another --method".into(),
        );
    }
    for SiteRecord { key, name, .. } in &saved.sites {
        if asked.continues && sites.saved_as(key, None).is_none() {
            return refuse(format!(
                "holds the statistics of {name}, which is not selected: choose another --state, or select it (`solve` may leave it out)"
            ));
        }
    }
    for site in &sites.sites {
        let is_it = |saved: &&SiteRecord| {
            let found = sites.saved_as(&saved.key, None);
            found.is_some_and(|at| sites.sites[at].key == site.key)
        };
        let known = saved.sites.iter().find(is_it);
        let now = site.in_features;
        match known {
            Some(then) if then.in_features != now => {
                let (name, then) = (&then.name, then.in_features);
                return refuse(format!(
                    "holds statistics of {name} with in_features {then}, the checkpoint's is {now}: choose another --state"
                ));
            }
            None if saved.selected => {
                return refuse(format!(
                    "was begun without {}, whose rows in the shards so far were not counted: choose another --state, or --exclude it",
                    site.name
                ));
            }
            _ => {}
        }
    }
    Ok(())
}
