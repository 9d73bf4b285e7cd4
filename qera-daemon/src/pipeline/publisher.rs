//! Publisher: keeps the latest solution of every layer, and turns them into a generation when no
//! solve is under way.

use core::sync::atomic::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::channel::Receiver;
use crate::error::Fatal;
use crate::host::core_time::{WorkKind, doing};
use crate::judge::progress::LayerSummary;
use crate::judge::schedule::first_point;
use crate::observe::event::Event;
use crate::observe::layer_events::LayerConverged;
use crate::observe::run_events::{AllLayersConverged, GenerationPublished};
use crate::observe::systemd;
use crate::pipeline::context::Context;
use crate::pipeline::entries::{LayerEntry, RelativeErrors};
use crate::pipeline::hook::Hook;
use crate::pipeline::layer_outcomes::layer_outcomes;
use crate::pipeline::ledger::CorrectionEntry;
use crate::pipeline::listener::Listener;
use crate::pipeline::outcome::{Drain, Drained, Outcome, SiteOutcome};
use crate::pipeline::stand_ins::StandIns;
use crate::pipeline::thread::Discard;
use crate::publish::generation::PublishOutcome;
use crate::publish::manifest::Inputs;
use crate::publish::notify::{HandOver, Notifiers, NotifyThreads};
use crate::publish::ratio::ratio;
use crate::publish::target::Target;
use crate::settings::convergence::Until;
use crate::solve::solution::{FailedLayer, Failure, LayerOutcome, LayerSolution, SolvedSite};
use crate::state::journal::Gathered;
use crate::state::restore::SiteState;
use crate::weights::sites::Site;

/// The publisher's own state.
pub(crate) struct Publisher<'a> {
    context: &'a Context<'a>,
    target: Target<'a>,
    /// The latest solution of each layer.
    latest: Vec<Option<LayerSolution>>,
    /// Layers to which the last attempt gave no correction, and why.
    failed: BTreeMap<usize, String>,
    /// Corrections by an imatrix, for layers without a solution.
    stand_ins: Option<StandIns<'a>>,
    /// Restored sites that have no solution in this run yet. Without them zeros would replace their
    /// corrections.
    owed: BTreeSet<usize>,
    gathered: Arc<Gathered>,
    /// Sites that passed a solve point since the last generation.
    fresh: BTreeSet<usize>,
    /// Whether one of these sites was solved, and not only scored.
    changed: bool,
    starved_said: bool,
    hook: Hook,
    servers: Notifiers,
}

impl<'a> Publisher<'a> {
    pub(crate) fn new(
        context: &'a Context<'a>,
        target: Target<'a>,
        restored: &[Option<SiteState>],
    ) -> Self {
        let layers: usize = context.sites.sites.iter().map(|s| s.layers.len()).sum();
        let with_rows =
            |s: &Option<SiteState>| s.as_ref().is_some_and(|state| state.statistics.rows > 0);
        Self {
            context,
            target,
            latest: (0..layers).map(|_| None).collect(),
            failed: BTreeMap::new(),
            stand_ins: StandIns::new(context),
            owed: (0..restored.len())
                .filter(|&site| with_rows(&restored[site]))
                .collect(),
            gathered: Arc::default(),
            fresh: BTreeSet::new(),
            changed: false,
            starved_said: false,
            hook: Hook::default(),
            servers: Notifiers::default(),
        }
    }

    /// Publishes until solvers and feeder have ended, and until the servers that are notified know
    /// the last generation.
    pub(crate) fn run(mut self, outcomes: &Receiver<Outcome>) -> Result<(), Fatal> {
        let rest = Discard(outcomes);
        if let Some(message) = self.target.notified.warning() {
            self.context.reporter.say(&Event::Warning {
                subject: "--notify",
                message: message.to_owned(),
            });
        }
        std::thread::scope(|scope| {
            let hand_over = HandOver {
                settings: self.context.settings.publish.notify.clone(),
                memory: Arc::clone(&self.target.notified),
                out: self.target.out.path.clone(),
                is_damaged: self.target.damage().is_some(),
            };
            let mut threads = NotifyThreads::default();
            self.servers = threads.start(scope, &hand_over, &Listener(self.context))?;
            let published = self.publish_all(outcomes);
            // Only the end of the run waits for a server.
            drop(rest);
            threads.join();
            published
        })
    }

    fn publish_all(mut self, outcomes: &Receiver<Outcome>) -> Result<(), Fatal> {
        self.hook = Hook::start(self.context, &self.target)?;
        // The restored evidence may be enough to end the run.
        self.check_convergence();
        for outcome in outcomes {
            if let Err(fatal) = self.take(outcome) {
                self.context.fail();
                return Err(fatal);
            }
        }
        self.hook.finish(self.context);
        Ok(())
    }

    fn take(&mut self, outcome: Outcome) -> Result<(), Fatal> {
        match outcome {
            Outcome::Failed(fatal) => return Err(fatal),
            Outcome::Drain(drain) => {
                let drained = self.drain(&drain)?;
                // The feeder may have ended by an error of its own.
                let _ = drain.reply.send(drained);
            }
            Outcome::Site(outcome) => {
                self.take_site(outcome);
                let under_way = self.context.jobs_in_flight.fetch_sub(1, Ordering::SeqCst) - 1;
                if !self.due(under_way) {
                    return Ok(());
                }
                if !self.context.has_all_quantized() {
                    // Only a drain may conclude that no more rows come for the other layers. What
                    // came is still new then, and the layers that have rows may have converged,
                    // which ends the run.
                    self.check_convergence();
                    return Ok(());
                }
                if self.changed {
                    let inputs = self.inputs(&self.gathered, false);
                    self.publish(inputs)?;
                } else {
                    self.fresh.clear(); // The current generation has these corrections.
                }
                // A site that was only scored may have shown that its layers have converged.
                self.check_convergence();
            }
        }
        Ok(())
    }

    fn take_site(&mut self, outcome: SiteOutcome) {
        let SiteOutcome {
            site,
            gathered,
            solved,
            summaries,
        } = outcome;
        let SolvedSite {
            solutions,
            failed,
            demoted: _,
        } = solved;
        let is_cold = summaries.is_none();
        if let Some(summaries) = summaries {
            self.fresh.insert(site);
            self.changed |= !solutions.is_empty();
            self.enter_summaries(site, summaries);
        }
        for failed in failed {
            let keeps = self.keeps_correction(&failed);
            self.context.tell_failed(&failed, keeps);
            self.failed.insert(failed.layer, failed.reason);
        }
        for solution in solutions {
            let layer = solution.layer;
            self.failed.remove(&layer);
            if is_cold && self.keeps_stand_in(&solution) {
                continue;
            }
            self.context.report(&solution);
            self.context.reporter.step(&self.context.layer(layer).name);
            let power = solution.output_power;
            self.context.ledger.corrected(&CorrectionEntry {
                layer,
                rows: solution.rows,
                errors: RelativeErrors {
                    of_window: solution.sketched.is_some(),
                    without: ratio(solution.error_without, power),
                    with: solution
                        .is_corrected()
                        .then(|| ratio(solution.factors.error, power)),
                },
            });
            self.latest[layer] = Some(solution);
        }
        self.owed.remove(&site);
        if gathered.position > self.gathered.position {
            self.gathered = gathered;
        }
    }

    /// Whether an earlier correction of a layer stays, or that of an imatrix.
    fn keeps_correction(&mut self, failed: &FailedLayer) -> bool {
        let latest = &mut self.latest[failed.layer];
        if failed.failure == Failure::Harmful {
            self.changed |= latest.take().is_some();
            return false;
        }
        if latest.is_none() {
            *latest = self.target.last_correction(failed.layer);
        }
        latest.is_some() || self.stands_in(failed.layer)
    }

    /// Whether an imatrix says more of a layer than the few rows that a drain solved it from. It
    /// does as long as the site has fewer rows than a first solve point.
    fn keeps_stand_in(&self, cold: &LayerSolution) -> bool {
        let first = first_point(self.context.layer(cold.layer).in_features);
        cold.rows < first && self.stands_in(cold.layer)
    }

    /// Whether an imatrix has a correction for a layer.
    fn stands_in(&self, layer: usize) -> bool {
        let given = self.context.imatrix;
        given.is_some_and(|given| given.layers.get(layer) == Some(&true))
    }

    /// Whether it is time for a generation. Sites pass their solve points at about the same time,
    /// and one generation is for all of them. So it is time when no solve is under way, or when
    /// every site beyond its first point has a new solution.
    fn due(&self, under_way: usize) -> bool {
        let entries = self.context.ledger.layers();
        let solvable = |site: &&Site| {
            let rows = site.layers.first().map(|&layer| entries[layer].rows);
            rows.is_some_and(|rows| rows >= first_point(site.in_features))
        };
        let all = || self.context.sites.sites.iter().filter(solvable);
        // Zeros must not take the place of corrections that are on their way.
        let is_done = |l: &usize| self.latest[*l].is_some() || self.failed.contains_key(l);
        let has_all = |site: &Site| site.layers.iter().all(is_done);
        all().all(has_all)
            && self.gathered.position >= self.context.published_position
            && !self.fresh.is_empty()
            && self.owed.is_empty()
            && (under_way == 0 || self.fresh.len() >= all().count())
    }

    /// Enters what a solve point showed, and says which layers have converged.
    fn enter_summaries(&self, site: usize, summaries: Vec<LayerSummary>) {
        let context = self.context;
        let layers = &context.sites.sites[site].layers;
        for (&layer, summary) in layers.iter().zip(summaries) {
            let before = context.ledger.judged(layer, summary);
            if summary.converged != before.summary.converged {
                context.reporter.say(&Event::Converged(LayerConverged {
                    layer: &context.layer(layer).name,
                    converged: summary.converged,
                    rows: before.rows,
                    gain_upper: summary.evidence.and_then(|e| e.gain_upper),
                }));
            }
        }
    }

    fn drain(&mut self, drain: &Drain) -> Result<Drained, Fatal> {
        self.warn_starved();
        if let Some(unrounded) = self.context.unrounded() {
            self.context.reporter.say(&Event::Unrounded(unrounded));
            return Ok(Drained::Gathering);
        }
        let stand_in = self.stand_ins.as_ref().is_some_and(StandIns::are_any);
        if self.latest.iter().all(Option::is_none) && !stand_in {
            return match self.failed.first_key_value() {
                None => Ok(Drained::Nothing),
                // What the layers lack may still come; the log named each of them.
                Some(_) if self.context.live && self.context.going() => Ok(Drained::Nothing),
                // There is nothing else that could be published.
                Some((&layer, reason)) => Err(Fatal::Solve {
                    layer: self.context.layer(layer).name.clone(),
                    reason: reason.clone().into(),
                }),
            };
        }
        let cut_off = drain.unread.sites.iter().any(|&site| {
            let layers = &self.context.sites.sites[site].layers;
            let bare = |layer: &usize| {
                let is_done = self.latest[*layer].is_some() || self.failed.contains_key(layer);
                !is_done && !self.stands_in(*layer)
            };
            layers.iter().any(bare)
        });
        if cut_off {
            return Ok(Drained::CutOff);
        }
        let inputs = Inputs {
            unread: drain.unread.shards,
            ..self.inputs(&drain.gathered, true)
        };
        let position = inputs.journal_position;
        doing(WorkKind::Round, || self.context.quantize_rest(position))?;
        Ok(if self.publish(inputs)? {
            Drained::Published
        } else {
            Drained::Rejected
        })
    }

    fn warn_of_nothing(&self, solved: usize, corrected: usize) {
        if solved > 0 && corrected == 0 {
            let message = "it changes nothing: no layer has a correction";
            self.context.warn_of("adapter", message.into());
        }
    }

    /// Writes a generation. Returns whether it passed its check and is published; if not, its
    /// corrections are still new to the next one.
    fn publish(&mut self, inputs: Inputs) -> Result<bool, Fatal> {
        self.fresh.clear();
        let context = self.context;
        let entries = context.ledger.layers();
        let summaries: Vec<LayerSummary> = entries.iter().map(|entry| entry.summary).collect();
        if let Some(stand_ins) = &mut self.stand_ins {
            stand_ins.complete(&self.latest)?;
        }
        // A layer that an imatrix stands in for may have failed as well.
        let entries = if self.stand_ins.is_some() {
            context.ledger.layers()
        } else {
            entries
        };
        let outcomes = layer_outcomes(&self.latest, self.stand_ins.as_ref(), &entries);
        let (shards, quarantined, unread) =
            (inputs.shards, inputs.quarantined_shards, inputs.unread);
        let target = &mut self.target;
        let publish = || target.publish(&outcomes, &summaries, inputs);
        let report = doing(WorkKind::Write, publish)?;
        for written in report.bases.events() {
            context.reporter.say(&written);
        }
        if let Some(unpruned) = report.unpruned {
            let message = format!("{unpruned}; the next generation tries it again");
            context.warn_of("--keep-generations", message);
        }
        let published = match report.outcome {
            PublishOutcome::Published(published) => published,
            PublishOutcome::Rejected(rejected) => {
                self.changed = true;
                context.tell_rejected(rejected);
                return Ok(false);
            }
        };
        self.changed = false;
        let solved = outcomes.iter().filter(|o| o.solution().is_some()).count();
        let corrected = || outcomes.iter().filter(|o| o.is_corrected());
        let imatrix = corrected().filter(|o| o.stand_in().is_some()).count();
        let starved = |o: &&LayerOutcome<'_>| matches!(o, LayerOutcome::Starved);
        let waiting = |o: &&LayerOutcome<'_>| matches!(o, LayerOutcome::Waiting);
        context.reporter.say(&Event::Published(GenerationPublished {
            generation: published.generation,
            path: published.path.display().to_string(),
            solved: corrected().count() - imatrix,
            uncorrected: solved - corrected().count(),
            imatrix,
            starved: outcomes.iter().filter(starved).count(),
            waiting: outcomes.iter().filter(waiting).count(),
            failed: context.ledger.failed_layers(),
            shards,
            quarantined,
            unread,
            rank: published.rank,
            bits_per_weight: published.bits,
        }));
        self.warn_of_nothing(solved, corrected().count());
        systemd::notify(&format!(
            "STATUS=generation {}, {shards} shards",
            published.generation
        ));
        context.ledger.published(published.generation);
        self.servers.published(published.generation);
        self.hook.published(&self.target.out, published.generation);
        Ok(true)
    }

    /// Ends the run when every layer that is fed has converged.
    fn check_convergence(&self) {
        let Until::Converged { all } = self.context.settings.convergence.until else {
            return;
        };
        let entries = self.context.ledger.layers();
        let fed = entries.iter().filter(|entry| entry.is_fed()).count();
        let bare = |entry: &&LayerEntry| !entry.is_fed() && !entry.stood_in;
        let starved = entries.iter().filter(bare).count();
        // A layer that cannot be solved would be waited for without end.
        let converged = |entry: &LayerEntry| {
            entry.summary.converged || entry.failed.is_some() || (!all && !entry.is_fed())
        };
        if self.context.converged() || fed == 0 || !entries.iter().all(converged) {
            return;
        }
        self.context
            .reporter
            .say(&Event::AllConverged(AllLayersConverged {
                layers: fed,
                starved,
            }));
        self.context.converge();
    }

    /// Says, once, which sites have had no row. Where none can come, it was said already what the
    /// imatrix lacks.
    fn warn_starved(&mut self) {
        let alone = self.stand_ins.is_some() && self.context.settings.source.watch.is_none();
        if core::mem::replace(&mut self.starved_said, true) || alone {
            return;
        }
        let entries = self.context.ledger.layers();
        for (index, site) in self.context.sites.sites.iter().enumerate() {
            let given = self.context.imatrix.is_some_and(|given| given.has(index));
            if !given && !site.layers.iter().any(|&layer| entries[layer].is_fed()) {
                self.context.warn_starved(site);
            }
        }
    }

    fn inputs(&self, gathered: &Gathered, drained: bool) -> Inputs {
        let refusals = self.context.ledger.refusals();
        Inputs {
            shards: gathered.shards,
            empty: gathered.empty,
            unread: 0,
            quarantined_shards: refusals.count,
            quarantined: refusals.reasons,
            full_precision_model: gathered.full_precision,
            journal_position: gathered.position,
            journal_digest: gathered.digest.clone(),
            drained,
            imatrix: self
                .context
                .imatrix
                .map(|given| given.files.clone())
                .unwrap_or_default(),
        }
    }
}
