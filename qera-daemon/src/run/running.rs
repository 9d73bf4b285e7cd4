//! A run that has read what earlier runs left, and goes on from there.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::disk;
use crate::error::Fatal;
use crate::host::cores::Cores;
use crate::observe::core_time_event::CoreTimeSpent;
use crate::observe::event::Event;
use crate::observe::reporter::Reporter;
use crate::pipeline;
use crate::pipeline::context::Context;
use crate::pipeline::feeder::Feeder;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::supply::{ShardFile, ShardSupply};
use crate::publish::target::Target;
use crate::run::announce::tell_restored;
use crate::run::begun::Begun;
use crate::run::ending::Ending;
use crate::run::full_disk::wait_for_room;
use crate::run::known_files::{known_files, recall};
use crate::run::losses::refuse_loss;
use crate::run::signals::Signals;
use crate::source::intake::Intake;
use crate::source::watch::Watcher;
use crate::state::fallback::Fallback;
use crate::state::held::newest_position;
use crate::state::journal::{Journal, Opened};
use crate::state::restore::Restored;
use crate::weights::sites::Site;

/// A run with its journal and snapshot read.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    begun: Begun<'a>,
    journal: Journal,
    restored: Restored,
    /// The fingerprint of what corrections and evidence belong to.
    solved_for: Option<String>,
    /// Files whose rows the snapshot holds.
    consumable: Vec<ShardFile>,
}

impl<'a> Running<'a> {
    /// Opens the journal and reads the newest snapshot.
    ///
    /// # Errors
    /// [`Fatal`] for a state that cannot be used, or only with a loss that was not accepted.
    pub(crate) fn start(mut begun: Begun<'a>, reporter: &Reporter) -> Result<Self, Fatal> {
        let prepared = &begun.prepared;
        let held_by_newest = newest_position(&begun.state.path, prepared.settings.accept_loss)?;
        let held_by_newest = held_by_newest.unwrap_or_default();
        let path = begun.state.path.join("journal");
        let Opened { mut journal, torn } = Journal::open(&path, held_by_newest)?;
        let solved_for = begun.target.as_ref().map(Target::solved_for);
        let expected = prepared.expected(solved_for.as_deref());
        let fallback = Fallback {
            journal: &journal,
            expected: &expected,
            accept_loss: prepared.settings.accept_loss,
        };
        let mut restored = fallback.restore(&begun.state.path)?;
        recall(
            &mut journal,
            restored.folds_again_from(),
            begun.inbox.intake.folder(),
        )?;
        if !prepared.settings.accept_loss {
            let watch = begun.inbox.intake.folder();
            refuse_loss(&begun.state.path, &restored, &journal, watch)?;
        }
        restored.open_unless(prepared.settings.convergence.closes_sites());
        if let Some(weights) = &prepared.weights {
            let has_quantized = |site: &Site| {
                let mut layers = site.layers.iter();
                layers.all(|&layer| weights.has_quantized(layer))
            };
            let sites = &prepared.sites.sites;
            restored.begin_without_corrections(|site| !has_quantized(&sites[site]));
        }
        tell_restored(
            &begun,
            &journal,
            torn,
            &restored,
            solved_for.as_deref(),
            reporter,
        );
        let consumable = held(&journal, &restored, &mut begun.inbox.intake)?;
        Ok(Self {
            begun,
            journal,
            restored,
            solved_for,
            consumable,
        })
    }

    /// The number of steps of a progress bar; 0 where more shards may always come.
    pub(crate) fn steps(&self) -> usize {
        let prepared = &self.begun.prepared;
        if prepared.settings.convergence.is_once() {
            prepared.admitted.len() + prepared.layers().len()
        } else {
            0
        }
    }

    /// Runs the pipeline to its end.
    ///
    /// # Errors
    /// [`Fatal`]; what was published before is still there, and what the state holds is not lost.
    pub(crate) fn run(self, signals: &Signals, reporter: &Reporter) -> Result<Ending, Fatal> {
        let Begun {
            prepared,
            inbox,
            state,
            target,
            given,
        } = self.begun;
        let mut entries = prepared.entries(&self.restored);
        if let Some(target) = &target {
            entries.stood_in(&target.stood_in());
        }
        let ledger = Ledger::begin(Some(&state), entries);
        let cores = Cores::new(prepared.settings.compute.threads);
        let context = Context {
            live: inbox.watcher.is_some(),
            imatrix: given.as_ref(),
            published_position: published_position(target.as_ref(), &self.journal),
            wake: inbox.watcher.as_ref().map(Watcher::handle),
            ..prepared.context(&cores, reporter, &ledger, &signals.stopping)
        };
        let is_over = [Arc::clone(&signals.stopping), context.failure()];
        let watched = inbox.intake.folder();
        let mut others = vec![watched.to_path_buf(), disk::full(watched)];
        others.extend(target.as_ref().map(|of| of.out.path.clone()));
        let waits = || wait_for_room(&state.path, others, is_over, reporter);
        let waits = context.live.then(waits);
        let published = target.as_ref().and_then(Target::drained);
        let behind = behind_of(&self.restored);
        let held_by_all = self.restored.folds_again_from();
        let supply = ShardSupply {
            context: &context,
            intake: inbox.intake,
            watcher: inbox.watcher,
            journal: self.journal,
            state: &state,
            plan: &prepared.plan,
            sites: prepared.sites.clone(),
            recording: prepared.recording.clone(),
            saved_sites: prepared.sites.sites.len(),
            model: prepared.solved_model(),
            gathered: self.restored.gathered,
            solved_for: self.solved_for,
            consumable: self.consumable,
            held_by_all,
            behind,
        };
        let drained = pipeline::run(&context, self.restored.sites, target, |dealer| {
            Feeder::new(supply, dealer, published).run()
        });
        ledger.stop();
        reporter.say(&Event::CoreTime(CoreTimeSpent::so_far()));
        Ok(Ending {
            drained: drained?,
            shards: ledger.shards(),
            refused: ledger.refusals().count,
            left_behind: ledger.left_behind(),
            was_full: waits.is_some_and(|waits| waits.was_cut_off()),
            failed: ledger.failed_layers(),
        })
    }
}

/// The journal's position of the current generation. The snapshot may be older, and nothing older
/// takes the generation's place.
fn published_position(target: Option<&Target<'_>>, journal: &Journal) -> u64 {
    target
        .and_then(Target::position)
        .filter(|at| journal.gathered(at.number).digest == at.digest)
        .map_or(0, |at| at.number)
}

/// The sites that lack shards which others have, with the number of each one's last shard.
fn behind_of(restored: &Restored) -> BTreeMap<usize, u64> {
    let behind = restored.behind.iter();
    behind.map(|of| (of.site, of.position)).collect()
}

/// Tells the intake which shards the statistics hold. Their files may be consumed, unless they are
/// folded again for a site.
fn held(
    journal: &Journal,
    restored: &Restored,
    intake: &mut Intake,
) -> Result<Vec<ShardFile>, Fatal> {
    let (position, again) = (restored.gathered.position, restored.folds_again_from());
    let mut consumable = Vec::new();
    for of in known_files(journal, intake.folder())? {
        intake.done_with(of.name.clone().into(), of.file);
        consumable.push(ShardFile {
            name: of.name,
            identity: of.file,
        });
    }
    journal
        .briefs()
        .for_each(|of| intake.accept_hash(of.brief.content));
    for record in journal.records().iter().filter(|r| r.number <= position) {
        intake.accept(&record.content);
        intake.done_with(record.name.clone().into(), record.file);
        if record.number <= again {
            consumable.push(ShardFile {
                name: record.name.clone(),
                identity: record.file,
            });
        }
    }
    Ok(consumable)
}
