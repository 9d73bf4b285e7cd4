//! A run that has locked its state and its output folder. While it waits for the first shard, the
//! set of sites may still change.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::disk::clock;
use crate::disk::tried::is_no_answer;
use crate::error::Fatal;
use crate::observe::event::Event;
use crate::observe::reporter::Reporter;
use crate::observe::status::Phase;
use crate::publish::out_folder::OutFolder;
use crate::publish::target::Target;
use crate::run::announce::{announce, ready};
use crate::run::begun::Begun;
use crate::run::cold::open_out;
use crate::run::ending::nothing_usable;
use crate::run::inbox::Inbox;
use crate::run::prepared::Prepared;
use crate::run::signals::Signals;
use crate::state::restore::Restored;
use crate::state::{SitesRecord, StateFolder, read_sites};
use crate::weights::checkpoint::refuse;
use crate::weights::opening::Model;
use crate::weights::recording::Recording;

/// A run with state and output folder locked.
#[derive(Debug)]
pub(crate) struct Locked<'a> {
    prepared: Prepared<'a>,
    model: Option<&'a Model>,
    inbox: Inbox,
    state: StateFolder,
    out: Option<OutFolder>,
    /// Why the folder could not be listed, where the disk did not answer.
    unlisted: Option<String>,
}

impl<'a> Locked<'a> {
    /// Locks the state, then the output folder.
    ///
    /// # Errors
    /// [`Fatal::Locked`], or [`Fatal`] for a folder that cannot be used.
    pub(crate) fn lock(
        mut prepared: Prepared<'a>,
        model: Option<&'a Model>,
        mut inbox: Inbox,
    ) -> Result<Self, Fatal> {
        let settings = prepared.settings;
        let state = StateFolder::open(&settings.state)?;
        state.refuse_other_versions()?;
        if read_sites(&state.path)? != prepared.saved {
            // Another run may have changed the state before it was locked.
            inbox.forget();
            prepared = Prepared::prepare(settings, model, Some(&mut inbox.intake))?;
            prepared.plan.check(settings)?;
        }
        let out = model.map(|_| open_out(settings, model)).transpose()?;
        Ok(Self {
            prepared,
            model,
            inbox,
            state,
            out,
            unlisted: None,
        })
    }

    /// Says what the run begins with, and that it is ready for shards.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn announce(&self, reporter: &Reporter) -> Result<(), Fatal> {
        announce(&self.prepared, reporter);
        if self.prepared.is_empty() && self.inbox.watcher.is_none() {
            // A live run tries them again, and tells them then.
            for message in self.prepared.unanswered.clone() {
                reporter.say(&Event::ShardQuarantined { message });
            }
        }
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

    /// Waits, in a live run without a state, for the first shards, which say which modules share an
    /// input.
    ///
    /// # Errors
    /// [`Fatal`] for shards or settings that cannot be used. A folder that is gone for a while is
    /// waited for.
    pub(crate) fn await_first_shard(
        &mut self,
        signals: &Signals,
        reporter: &Reporter,
    ) -> Result<(), Fatal> {
        let Some(watcher) = &mut self.inbox.watcher else {
            return Ok(());
        };
        let (settings, model) = (self.prepared.settings, self.model);
        let mut refused = Vec::new();
        let mut said = None;
        let mut unanswered = BTreeSet::new();
        while self.prepared.is_empty() && !signals.came() {
            refused.append(&mut self.prepared.refused);
            let deadline = clock::now() + settings.source.rescan;
            let verdict = self.inbox.intake.next_verdict().unwrap_or(deadline);
            reporter.say_repeated(false);
            let repeated = reporter.repeated_at().unwrap_or(deadline);
            watcher.wait(verdict.min(deadline).min(repeated));
            match Prepared::prepare(settings, model, Some(&mut self.inbox.intake)) {
                Ok(again) => {
                    self.prepared = again;
                    self.unlisted = None;
                }
                // The folder is gone for a while, or does not answer.
                Err(fatal @ Fatal::Io { .. }) => {
                    let message = is_no_answer(&fatal).then(|| fatal.to_string());
                    let new = message.clone().filter(|of| unanswered.insert(of.clone()));
                    if let Some(message) = new {
                        reporter.say(&Event::Warning {
                            subject: "watched folder",
                            message,
                        });
                    }
                    self.unlisted = message;
                }
                // No shard has yet named the layer that an option selects.
                Err(Fatal::Usage(message)) => {
                    if said.as_ref() != Some(&message) {
                        reporter.say(&Event::Warning {
                            subject: "waiting for shards",
                            message: message.clone(),
                        });
                        said = Some(message);
                    }
                }
                Err(fatal) => return Err(fatal),
            }
            watcher.renew(|_| ());
            for message in &self.prepared.refused {
                reporter.say(&Event::ShardQuarantined {
                    message: message.clone(),
                });
            }
            for message in &self.prepared.unanswered {
                if unanswered.insert(message.clone()) {
                    reporter.say(&Event::Warning {
                        subject: "watched folder",
                        message: format!("{message}; it is tried again with the next listing"),
                    });
                }
            }
            self.prepared.plan.check(settings)?;
        }
        self.prepared.refused.append(&mut refused);
        Ok(())
    }

    /// What the disk did not give when the folder was listed last.
    #[must_use]
    pub(crate) fn unanswered(&self) -> Vec<String> {
        let of_folder = self.unlisted.iter();
        of_folder
            .chain(&self.prepared.unanswered)
            .cloned()
            .collect()
    }

    /// Fixes the sites; `None` when a signal came before there were any.
    ///
    /// # Errors
    /// [`Fatal::NothingUsable`] where `--once` finds nothing to begin with; [`Fatal::Io`].
    pub(crate) fn begin(self, signals: &Signals) -> Result<Option<Begun<'a>>, Fatal> {
        let Self {
            mut prepared,
            model: _,
            inbox,
            state,
            out,
            unlisted: _,
        } = self;
        let empty = prepared.is_empty();
        if empty && inbox.watcher.is_none() {
            return Err(nothing_to_begin_with(&prepared, &inbox));
        }
        if empty && signals.came() {
            return Ok(None);
        }
        if prepared.weights.is_none() && prepared.saved.is_none() {
            // Without a checkpoint modules come with accepted shards, not with shards that are
            // merely there.
            prepared.sites = prepared.sites.without_sites();
            prepared.recording = Recording::default();
        }
        if let Some(weights) = &prepared.weights {
            let again = prepared.settings.weights.new_checkpoint;
            weights.keep_rounded_in_state(&state.path, again)?;
        }
        let target = match (out, &prepared.weights) {
            (Some(out), Some(weights)) => {
                let identity = Some(state.identity.clone());
                Some(Target::open(
                    out,
                    prepared.settings,
                    Arc::clone(weights),
                    identity,
                )?)
            }
            _ => None,
        };
        let sites = SitesRecord::new(&prepared.sites, &prepared.recording);
        let sites = sites
            .with_model(prepared.solved_model())
            .within(prepared.settings.compute.window_memory);
        if prepared.saved.as_ref() != Some(&sites) {
            state.save_sites(&sites)?;
        }
        Ok(Some(Begun {
            prepared,
            inbox,
            state,
            target,
            given: None,
        }))
    }
}

/// The error that `--once` has nothing to do, with the reason.
fn nothing_to_begin_with(prepared: &Prepared<'_>, inbox: &Inbox) -> Fatal {
    match &prepared.weights {
        Some(weights) if !prepared.admitted.is_empty() => {
            let mut left_out = weights.passed_over().iter();
            let of_file = weights.given().and_then(|given| {
                let first = left_out.find(|of| of.why.is_of_given())?;
                Some(refuse(
                    given.given.path(),
                    format!(
                        "none of the layers that shards name can be corrected: '{}' first, {}; \
                         nothing was published",
                        first.tensor, first.why
                    ),
                ))
            });
            of_file.unwrap_or_else(|| {
                refuse(
                    weights.path(),
                    "no shard names a linear layer of it that is selected: a shard's key, \
                     qera.linears, a listed model_type or --include with a full name does; \
                     nothing was published"
                        .into(),
                )
            })
        }
        _ => {
            let refused = prepared.refused.len() + prepared.unanswered.len();
            nothing_usable(inbox.intake.folder(), refused)
        }
    }
}
