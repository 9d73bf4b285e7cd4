//! What the feeder takes shards from and answers for: the watched folder, the journal, the state.

use std::path::Path;

use crate::disk;
use crate::disk::identity::Identity;
use crate::error::Fatal;
use crate::plan::Plan;
use crate::settings::Settings;
use crate::settings::source::Consume;
use crate::source::admission::{Admission, Admitted, declared_shares, grow};
use crate::source::intake::Intake;
use crate::source::refusal::Refusal;
use crate::source::shard::ShardHeader;
use crate::source::watch::{Wake, Watcher};
use crate::state::journal::{Gathered, Journal};
use crate::state::{SitesRecord, StateFolder};
use crate::weights::Weights;
use crate::weights::sites::Sites;

/// The watched folder and the state.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    /// The settings.
    pub(crate) settings: &'a Settings,
    /// The folder, and what was taken from it.
    pub(crate) intake: Intake,
    /// What wakes the feeder; `None` for `--once`.
    pub(crate) watcher: Option<Watcher>,
    /// Ends its wait.
    pub(crate) wake: Option<Wake>,
    /// The journal.
    pub(crate) journal: Journal,
    /// The state.
    pub(crate) state: &'a StateFolder,
    /// The sites; they grow where there is no checkpoint.
    pub(crate) sites: Sites,
    /// How many of them `sites.json` names.
    pub(crate) saved_sites: usize,
    /// Whether R is gathered.
    pub(crate) keeps_r: bool,
    /// The model, where there is one.
    pub(crate) weights: Option<&'a Weights>,
    /// The memory plan.
    pub(crate) plan: &'a Plan,
    /// The shards that the statistics hold.
    pub(crate) gathered: Gathered,
    /// What corrections and evidence belong to.
    pub(crate) solved_for: Option<String>,
    /// Digest of the shards that the current generation is the last word on.
    pub(crate) published: Option<String>,
    /// Shards that were refused when the sites were grouped.
    pub(crate) refused: Vec<String>,
    /// Files whose rows a snapshot will hold, or holds: what `--consume` is about.
    pub(crate) consumable: Vec<(String, Identity)>,
}

impl Source<'_> {
    /// Judges a header against sites and plan. Where there is no checkpoint, the sites that it adds are returned: they are
    /// real only when the shard is accepted.
    pub(crate) fn admit(&self, header: &ShardHeader) -> Result<(Admitted, Option<Sites>), Refusal> {
        let layers = self.weights.map_or(&[][..], Weights::layers);
        declared_shares(header, layers, &mut self.sites.shares().clone())?;
        let refuse = |reason| Refusal {
            shard: header.name.clone(),
            reason,
        };
        let grown = self.weights.is_none().then(|| {
            let mut sites = self.sites.clone();
            grow(header, &self.settings.weights.selection, &mut sites);
            sites
        });
        let sites = grown.as_ref().unwrap_or(&self.sites);
        if sites.sites.len() > self.sites.sites.len() {
            self.plan
                .holds(self.settings, sites, self.keeps_r)
                .map_err(refuse)?;
        }
        let admission = Admission {
            weights: self.weights,
            selection: &self.settings.weights.selection,
            sites,
        };
        let admitted = admission.admit(header)?;
        self.plan.admits(self.settings, &admitted).map_err(refuse)?;
        Ok((admitted, grown))
    }

    /// Takes the sites that an accepted shard adds, and makes them durable before a row of theirs is.
    pub(crate) fn grow_to(&mut self, grown: Option<Sites>) -> Result<(), Fatal> {
        if let Some(sites) = grown {
            self.sites = sites;
        }
        if self.sites.sites.len() > self.saved_sites {
            self.state
                .save_sites(&SitesRecord::new(&self.sites, self.keeps_r))?;
            self.saved_sites = self.sites.sites.len();
        }
        Ok(())
    }

    /// Does with the files that a snapshot holds what `--consume` says; returns what stood in the way. Each is first moved
    /// aside and looked at there: one that is another file by now is put back.
    pub(crate) fn consume(&mut self) -> Vec<String> {
        let how = self.settings.source.consume;
        if how == Consume::Keep {
            self.consumable.clear();
            return Vec::new();
        }
        let folder = self.intake.folder();
        let consumed = folder.join(".consumed");
        // Gone for a while: later.
        if self.consumable.is_empty() || !disk::is_folder(folder) {
            return Vec::new();
        }
        let mut problems = Vec::new();
        for (name, identity) in core::mem::take(&mut self.consumable) {
            if let Err(error) = consume_one(&folder.join(&name), &consumed, &name, identity, how) {
                problems.push(format!("{name} cannot be consumed: {error}"));
            }
        }
        // Left empty after deleting; where it is not, it stays.
        let _ = disk::remove_empty(&consumed);
        problems
    }
}

fn consume_one(
    path: &Path,
    consumed: &Path,
    name: &str,
    identity: Identity,
    how: Consume,
) -> std::io::Result<()> {
    let same = |path: &Path| Identity::at(path).is_ok_and(|now| now == identity);
    if !same(path) {
        return Ok(());
    }
    if !disk::is_folder(consumed) {
        disk::create_folder(consumed)?;
    }
    // An earlier shard of this name is not lost to a later one.
    let free = |folder: &Path| {
        let numbered = (1..).map(|number| folder.join(format!("{number}-{name}")));
        let mut names = core::iter::once(folder.join(name)).chain(numbered);
        names.find(|path| !disk::exists(path)).unwrap_or_default()
    };
    let aside = free(consumed);
    disk::rename(path, &aside)?;
    if !same(&aside) {
        let folder = consumed.parent().unwrap_or(consumed);
        return disk::rename(&aside, &free(folder));
    }
    if how == Consume::Delete {
        disk::remove_file(&aside)?;
    }
    Ok(())
}
