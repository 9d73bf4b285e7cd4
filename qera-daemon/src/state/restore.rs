//! Reading a state back: the newest snapshot that is whole.

use std::path::{Path, PathBuf};

use crate::calibrate::aside::Aside;
use crate::calibrate::site::SiteStatistics;
use crate::error::Fatal;
use crate::judge::progress::SiteProgress;
use crate::state::SitesRecord;
use crate::state::journal::{Gathered, Journal};
use crate::state::site_file::{read_progress, read_statistics};
use crate::state::snapshot::{Index, list};
use crate::weights::sites::Sites;

/// How often a reader beside a running daemon looks again when the snapshot that it reads is replaced.
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
    /// Newer snapshots, and what is wrong with them.
    pub(crate) damaged: Vec<(PathBuf, String)>,
}

impl Restored {
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
    /// Whether R was gathered.
    pub(crate) keeps_r: bool,
    /// Fingerprint of checkpoint and settings; progress of others is left.
    pub(crate) solved_for: Option<&'a str>,
    /// (in_features, out_features) of the layers of each site.
    pub(crate) layers: Vec<Vec<(usize, usize)>>,
    /// Rows kept aside, by site.
    pub(crate) scored_shares: Vec<f64>,
}

/// Reads the newest whole snapshot whose shards are those of the journal.
///
/// # Errors
/// [`Fatal::StateRefused`] when there are snapshots and none is whole; [`Fatal::Io`].
pub(crate) fn restore(
    state: &Path,
    journal: Option<&Journal>,
    expected: &Expected<'_>,
) -> Result<Restored, Fatal> {
    let mut damaged = Vec::new();
    for _ in 0..ATTEMPTS {
        damaged.clear();
        let snapshots = list(state)?;
        if snapshots.is_empty() {
            return Ok(Restored::default());
        }
        for (_, path) in &snapshots {
            match read(path, journal, expected)? {
                Ok(mut restored) => {
                    restored.damaged = damaged;
                    return Ok(restored);
                }
                Err(what) => damaged.push((path.clone(), what)),
            }
        }
        // With the lock held nobody else changes them.
        if journal.is_some() {
            break;
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

fn list_of(damaged: &[(PathBuf, String)]) -> String {
    let parts = damaged
        .iter()
        .map(|(path, what)| format!("{}: {what}", path.display()));
    parts.collect::<Vec<_>>().join("; ")
}

/// One snapshot, or what is wrong with it.
fn read(
    path: &Path,
    journal: Option<&Journal>,
    expected: &Expected<'_>,
) -> Result<Result<Restored, String>, Fatal> {
    let Some(index) = Index::read(path) else {
        return Ok(Err("its index is damaged".into()));
    };
    let gathered = &index.gathered;
    if journal.is_some_and(|j| j.gathered(gathered.position) != *gathered) {
        return Ok(Err("it holds other shards than the journal".into()));
    }
    let mut restored = Restored {
        gathered: index.gathered.clone(),
        solved_for: index.solved_for.clone(),
        sites: expected.sites.sites.iter().map(|_| None).collect(),
        damaged: Vec::new(),
    };
    for saved in &index.sites {
        let Some(site) = expected.sites.with_key(&saved.key) else {
            continue; // Of a module that `solve` is not asked for.
        };
        let in_features = expected.sites.sites[site].in_features;
        let statistics = read_statistics(
            &saved.statistics_file(path),
            &saved.statistics,
            (&saved.key, in_features),
            expected.keeps_r,
        )?;
        let Some(mut statistics) = statistics else {
            return Ok(Err(format!("the statistics of {} are damaged", saved.key)));
        };
        statistics.aside = Aside::new(in_features, expected.scored_shares[site]);
        let mut state = SiteState {
            statistics,
            progress: None,
        };
        let current = index.solved_for.as_deref() == expected.solved_for;
        if let Some(hash) = saved.progress.as_ref().filter(|_| current) {
            let file = saved.progress_file(path);
            let share = expected.scored_shares[site];
            // Evidence begins anew where it is damaged; the statistics are worth more.
            let layers = &expected.layers[site];
            if let Some((progress, aside)) = read_progress(&file, hash, &saved.key, layers, share)?
            {
                state.statistics.aside = aside;
                state.progress = Some(progress);
            }
        }
        restored.sites[site] = Some(state);
    }
    Ok(Ok(restored))
}

/// Whether a run on today's sites may be solved from what was saved, or continue it.
///
/// # Errors
/// [`Fatal::StateRefused`] naming the first site that differs, or that R was not gathered and is asked for.
pub(crate) fn check_sites(
    state: &Path,
    saved: &SitesRecord,
    sites: &Sites,
    (needs_r, continues): (bool, bool),
) -> Result<(), Fatal> {
    let refuse = |reason| {
        Err(Fatal::StateRefused {
            path: state.to_path_buf(),
            reason,
        })
    };
    if needs_r && !saved.keeps_r {
        return refuse(
            "was gathered without R, which --method exact needs: choose another --state, or another --method".into(),
        );
    }
    for (key, name, _) in &saved.sites {
        if continues && sites.with_key(key).is_none() {
            return refuse(format!(
                "holds the statistics of {name}, which is not selected: choose another --state, or select it (`solve` may leave it out)"
            ));
        }
    }
    for site in &sites.sites {
        let known = saved.sites.iter().find(|(key, ..)| *key == site.key);
        let now = site.in_features;
        match known {
            Some((_, name, then)) if *then != now => {
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
