//! A run that has its state and its output folder for itself. Which sites there are may still
//! change while it waits for the first shard.

use crate::disk::clock;
use crate::error::Fatal;
use crate::observe::event::Event;
use crate::observe::reporter::Reporter;
use crate::observe::status::Phase;
use crate::publish::target::Target;
use crate::run::announce::{announce, ready};
use crate::run::begun::Begun;
use crate::run::ending::nothing_usable;
use crate::run::inbox::Inbox;
use crate::run::prepared::Prepared;
use crate::run::signals::Signals;
use crate::state::restore::Restored;
use crate::state::{SitesRecord, StateFolder, read_sites};

/// State and output folder are held.
#[derive(Debug)]
pub(crate) struct Locked<'a> {
    prepared: Prepared<'a>,
    inbox: Inbox,
    state: StateFolder,
    target: Option<Target<'a>>,
}

impl<'a> Locked<'a> {
    /// Locks the state, then the output folder.
    ///
    /// # Errors
    /// [`Fatal::Locked`], or [`Fatal`] for a folder that cannot serve.
    pub(crate) fn lock(mut prepared: Prepared<'a>, mut inbox: Inbox) -> Result<Self, Fatal> {
        let (settings, weights) = (prepared.settings, prepared.weights);
        let state = StateFolder::open(&settings.state)?;
        state.refuse_other_versions()?;
        if read_sites(&state.path)? != prepared.saved {
            // Another run began or went on with it before the lock was ours.
            inbox.forget();
            prepared = Prepared::prepare(settings, weights, Some(&mut inbox.intake))?;
            prepared.plan.check(settings)?;
        }
        let target = weights
            .map(|weights| Target::open(settings, weights))
            .transpose()?;
        Ok(Self {
            prepared,
            inbox,
            state,
            target,
        })
    }

    /// Says what the run begins with, and that it is ready for shards.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn announce(&self, reporter: &Reporter) -> Result<(), Fatal> {
        announce(&self.prepared, reporter);
        if self.prepared.saved.is_none() {
            let mut entries = self.prepared.entries(&Restored::default());
            entries.phase = Phase::WaitingForTheFirstShard;
            self.state.save_status(&entries.status())?;
        }
        if self.inbox.watcher.is_some() {
            ready(self.inbox.intake.folder(), reporter);
        }
        Ok(())
    }

    /// A live run that begins waits for the first shards, which say which modules share an input.
    ///
    /// # Errors
    /// [`Fatal`] for what can not serve; a folder that is gone for a while is waited for.
    pub(crate) fn await_first_shard(
        &mut self,
        signals: &Signals,
        reporter: &Reporter,
    ) -> Result<(), Fatal> {
        let Some(watcher) = &mut self.inbox.watcher else {
            return Ok(());
        };
        let (settings, weights) = (self.prepared.settings, self.prepared.weights);
        let mut refused = Vec::new();
        while self.prepared.is_empty() && !signals.came() {
            refused.append(&mut self.prepared.refused);
            let deadline = clock::now() + settings.source.rescan;
            let verdict = self.inbox.intake.next_verdict().unwrap_or(deadline);
            watcher.wait(verdict.min(deadline));
            match Prepared::prepare(settings, weights, Some(&mut self.inbox.intake)) {
                Ok(again) => self.prepared = again,
                // The folder is gone for a while.
                Err(Fatal::Io { .. }) => {}
                Err(fatal) => return Err(fatal),
            }
            watcher.renew(|_| ());
            for message in &self.prepared.refused {
                reporter.say(&Event::ShardQuarantined {
                    message: message.clone(),
                });
            }
            self.prepared.plan.check(settings)?;
        }
        self.prepared.refused.append(&mut refused);
        Ok(())
    }

    /// Fixes the sites; `None` when a signal came before there were any.
    ///
    /// # Errors
    /// [`Fatal::NothingUsable`] where nothing came that `--once` could begin with, [`Fatal::Io`].
    pub(crate) fn begin(self, signals: &Signals) -> Result<Option<Begun<'a>>, Fatal> {
        let Self {
            mut prepared,
            inbox,
            state,
            target,
        } = self;
        let empty = prepared.is_empty();
        if empty && inbox.watcher.is_none() {
            let folder = inbox.intake.folder();
            return Err(nothing_usable(folder, prepared.refused.len()));
        }
        if empty && signals.came() {
            return Ok(None);
        }
        if prepared.weights.is_none() && prepared.saved.is_none() {
            // Modules come with the shards that are accepted, not with those that are only there.
            prepared.sites = prepared.sites.without_sites();
        }
        let sites = SitesRecord::new(&prepared.sites);
        if prepared.saved.as_ref() != Some(&sites) {
            state.save_sites(&sites)?;
        }
        Ok(Some(Begun {
            prepared,
            inbox,
            state,
            target,
        }))
    }
}
