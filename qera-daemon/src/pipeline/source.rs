//! What the feeder takes shards from and answers for: the watched folder, the journal, the state.

use crate::checkpoint::{Checkpoint, Layer, Sites};
use crate::durable::sync;
use crate::error::Stop;
use crate::plan::Plan;
use crate::settings::{Consume, Settings};
use crate::source::{
    Admission, Admitted, Intake, Refusal, ShardHeader, Wake, Watcher, declared_shares, grow,
};
use crate::state::{Gathered, Journal, SitesRecord, StateFolder};
use crate::tensor_file::Identity;

/// The watched folder and the state.
#[derive(Debug)]
pub struct Source<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// The folder, and what was taken from it.
    pub intake: Intake,
    /// What wakes the feeder; `None` for `--once`.
    pub watcher: Option<Watcher>,
    /// Ends its wait.
    pub wake: Option<Wake>,
    /// The journal.
    pub journal: Journal,
    /// The state.
    pub state: &'a StateFolder,
    /// The sites; they grow where there is no checkpoint.
    pub sites: Sites,
    /// How many of them `sites.json` names.
    pub saved_sites: usize,
    /// Whether R is gathered.
    pub keeps_r: bool,
    /// The checkpoint.
    pub checkpoint: Option<&'a Checkpoint>,
    /// The selected layers.
    pub layers: &'a [Layer],
    /// The memory plan.
    pub plan: &'a Plan,
    /// The shards that the statistics hold.
    pub gathered: Gathered,
    /// What corrections and evidence belong to.
    pub solved_for: Option<String>,
    /// Digest of the shards that the current generation is the last word on.
    pub published: Option<String>,
    /// Shards that were refused when the sites were grouped.
    pub refused: Vec<String>,
    /// Files whose rows a snapshot will hold, or holds: what `--consume` is about.
    pub consumable: Vec<(String, Identity)>,
}

impl Source<'_> {
    /// Judges a header against sites and plan.
    pub(super) fn admit(&mut self, header: &ShardHeader) -> Result<Admitted, Refusal> {
        declared_shares(header, self.layers, &mut self.sites.shares().clone())?;
        if self.checkpoint.is_none() {
            grow(header, &self.settings.selection, &mut self.sites);
        }
        let admission = Admission {
            checkpoint: self.checkpoint,
            model_names: self
                .checkpoint
                .map_or_else(Vec::new, Checkpoint::model_names),
            selection: &self.settings.selection,
            sites: &self.sites,
        };
        let admitted = admission.admit(header)?;
        self.plan
            .admits(self.settings, &admitted)
            .map_err(|reason| Refusal {
                shard: header.name.clone(),
                reason,
            })?;
        Ok(admitted)
    }

    /// Makes the sites durable where some are new, before a row of theirs is.
    pub(super) fn save_sites(&mut self) -> Result<(), Stop> {
        if self.sites.sites.len() > self.saved_sites {
            self.state
                .save_sites(&SitesRecord::new(&self.sites, self.keeps_r))?;
            self.saved_sites = self.sites.sites.len();
        }
        Ok(())
    }

    /// Does with the files that a snapshot holds what `--consume` says. A file that is another one by now stays.
    pub(super) fn consume(&mut self) -> Result<(), Stop> {
        let how = self.settings.watching.consume;
        let files = core::mem::take(&mut self.consumable);
        if how == Consume::Keep || files.is_empty() {
            return Ok(());
        }
        let folder = self.intake.folder();
        let consumed = folder.join(".consumed");
        if how == Consume::Move {
            std::fs::create_dir_all(&consumed).map_err(Stop::io(&consumed, "create"))?;
        }
        for (name, identity) in files {
            let path = folder.join(&name);
            let same = std::fs::metadata(&path).is_ok_and(|m| Identity::from(&m) == identity);
            if !same {
                continue;
            }
            if how == Consume::Delete {
                std::fs::remove_file(&path).map_err(Stop::io(&path, "remove"))?;
                continue;
            }
            // An earlier shard of this name is not lost to a later one.
            let mut target = consumed.join(&name);
            let mut number = 1;
            while target.exists() {
                target = consumed.join(format!("{number}-{name}"));
                number += 1;
            }
            std::fs::rename(&path, &target).map_err(Stop::io(&target, "move into"))?;
        }
        sync(folder)
    }
}
