//! Publisher: keeps the latest solution of every layer, and turns them into a generation when no solve is under way.

use core::sync::atomic::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use crate::error::Fatal;
use crate::judge::progress::LayerSummary;
use crate::judge::schedule::first_point;
use crate::observe::event::Event;
use crate::observe::status::LayerStatus;
use crate::observe::systemd;
use crate::pipeline::{Discard, Shared};
use crate::publish::generation::Publication;
use crate::publish::manifest::{Inputs, ratio};
use crate::publish::on_publish::{OnPublish, Published};
use crate::publish::target::Target;
use crate::settings::convergence::Until;
use crate::solve::solution::{LayerSolution, Status};
use crate::state::journal::Gathered;
use crate::state::restore::SiteState;
use crate::weights::sites::{Site, Sites};

/// What solvers and feeder tell the publisher.
pub(crate) enum Outcome {
    /// A site was solved.
    Solved {
        site: usize,
        gathered: Arc<Gathered>,
        solutions: Vec<LayerSolution>,
        /// At a solve point: what is to be told of its layers' progress.
        progress: Option<Vec<LayerSummary>>,
    },
    /// A site could not be solved.
    Failed(Fatal),
    /// Every site was solved cold: publish.
    Drain(Drain),
}

/// The order to publish what was solved cold.
pub(crate) struct Drain {
    pub(crate) gathered: Gathered,
    /// Sites that files left unread would feed.
    pub(crate) fed_later: BTreeSet<usize>,
    pub(crate) unread: usize,
    pub(crate) reply: Sender<Drained>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Drained {
    /// A generation.
    Published(Publication),
    /// No layer has a solution.
    Nothing,
    /// A signal kept a layer from rows that unread files have: it would be published as zeros.
    CutOff,
    /// A stage failed.
    Failed,
}

/// The publisher.
pub(crate) struct Publisher<'a> {
    target: Target<'a>,
    /// By layer.
    latest: Vec<Option<LayerSolution>>,
    progress: Vec<LayerSummary>,
    /// Restored sites without a solution in this run: zeros would replace their corrections.
    owed: BTreeSet<usize>,
    gathered: Arc<Gathered>,
    /// Sites with a solve point since the last generation.
    fresh: BTreeSet<usize>,
    /// Whether one of them was solved, not only scored.
    changed: bool,
    starved_said: bool,
    hook: Option<OnPublish>,
    converged_said: bool,
}

impl<'a> Publisher<'a> {
    pub(crate) fn new(
        target: Target<'a>,
        restored: &[Option<SiteState>],
        sites: &Sites,
        tolerance: f64,
    ) -> Self {
        let layers = sites.sites.iter().map(|s| s.layers.len()).sum();
        let mut progress = vec![LayerSummary::default(); layers];
        for (site, state) in sites.sites.iter().zip(restored) {
            let saved = state.as_ref().and_then(|state| state.progress.as_ref());
            let summaries = saved.map(|saved| saved.summaries(tolerance));
            for (&layer, summary) in site.layers.iter().zip(summaries.into_iter().flatten()) {
                progress[layer] = summary;
            }
        }
        let with_rows =
            |s: &Option<SiteState>| s.as_ref().is_some_and(|state| state.statistics.rows > 0);
        Self {
            target,
            latest: (0..layers).map(|_| None).collect(),
            progress,
            owed: (0..restored.len())
                .filter(|&site| with_rows(&restored[site]))
                .collect(),
            gathered: Arc::default(),
            fresh: BTreeSet::new(),
            changed: false,
            starved_said: false,
            hook: None,
            converged_said: false,
        }
    }

    /// Publishes until solvers and feeder have ended.
    pub(crate) fn run(
        mut self,
        shared: &Shared<'_>,
        outcomes: &Receiver<Outcome>,
    ) -> Result<(), Fatal> {
        if let Some(command) = &shared.settings.publish.on_publish {
            let reporter = shared.reporter.clone();
            let failed = move |message| {
                reporter.say(&Event::Warning {
                    subject: "--on-publish",
                    message,
                });
            };
            self.hook = Some(OnPublish::start(command.clone(), failed)?);
        }
        let _rest = Discard(outcomes);
        // What was restored may be enough.
        self.check_convergence(shared);
        for outcome in outcomes {
            if let Err(fatal) = self.take(shared, outcome) {
                shared.fail();
                return Err(fatal);
            }
        }
        if let Some(hook) = self.hook {
            hook.finish();
        }
        Ok(())
    }

    fn take(&mut self, shared: &Shared<'_>, outcome: Outcome) -> Result<(), Fatal> {
        match outcome {
            Outcome::Failed(fatal) => return Err(fatal),
            Outcome::Drain(drain) => {
                let drained = self.drain(shared, &drain)?;
                // The feeder may have ended by an error of its own.
                let _ = drain.reply.send(drained);
            }
            Outcome::Solved {
                site,
                gathered,
                solutions,
                progress,
            } => {
                if let Some(progress) = progress {
                    self.fresh.insert(site);
                    self.changed |= !solutions.is_empty();
                    self.progressed(shared, site, progress);
                }
                for solution in solutions {
                    shared.report(&solution);
                    shared.reporter.step(&shared.layer(solution.layer).name);
                    let layer = solution.layer;
                    self.latest[layer] = Some(solution);
                }
                for &layer in &shared.sites.sites[site].layers {
                    self.show(shared, layer);
                }
                self.owed.remove(&site);
                if gathered.position > self.gathered.position {
                    self.gathered = gathered;
                }
                let under_way = shared.in_flight.fetch_sub(1, Ordering::SeqCst) - 1;
                let due = self.due(shared, under_way);
                if due && self.changed {
                    let inputs = inputs(shared, &self.gathered, false);
                    self.publish(shared, inputs)?;
                    self.check_convergence(shared);
                } else if due {
                    self.fresh.clear(); // The current generation has these corrections.
                    // What was only scored may have shown that they have converged.
                    self.check_convergence(shared);
                }
            }
        }
        Ok(())
    }

    /// Whether it is time for a generation: sites pass their solve points at about the same time, and one generation is
    /// for all of them. When no solve is under way, or when every site beyond its first point has a new solution.
    fn due(&self, shared: &Shared<'_>, under_way: usize) -> bool {
        let solvable = |site: &&Site| {
            let rows = site.layers.first().map(|&layer| shared.board.rows(layer));
            rows.is_some_and(|rows| rows >= first_point(site.in_features))
        };
        let all = || shared.sites.sites.iter().filter(solvable);
        // Zeros must not take the place of corrections that are on their way.
        let solved = |site: &Site| site.layers.iter().all(|&l| self.latest[l].is_some());
        all().all(solved)
            && self.gathered.position >= shared.floor
            && !self.fresh.is_empty()
            && self.owed.is_empty()
            && (under_way == 0 || self.fresh.len() >= all().count())
    }

    /// Takes the summaries of a solve point, and says what has converged.
    fn progressed(&mut self, shared: &Shared<'_>, site: usize, progress: Vec<LayerSummary>) {
        let layers = &shared.sites.sites[site].layers;
        for (&layer, summary) in layers.iter().zip(progress) {
            let before = core::mem::replace(&mut self.progress[layer], summary);
            if summary.converged != before.converged {
                shared.reporter.say(&Event::Converged {
                    layer: &shared.layer(layer).name,
                    converged: summary.converged,
                    rows: shared.board.rows(layer),
                    gain_upper: summary.evidence.and_then(|e| e.gain_upper),
                });
            }
        }
    }

    fn drain(&mut self, shared: &Shared<'_>, drain: &Drain) -> Result<Drained, Fatal> {
        self.warn_starved(shared);
        if self.latest.iter().all(Option::is_none) {
            return Ok(Drained::Nothing);
        }
        let cut_off = drain.fed_later.iter().any(|&site| {
            let layers = &shared.sites.sites[site].layers;
            layers.iter().any(|&layer| self.latest[layer].is_none())
        });
        if cut_off {
            return Ok(Drained::CutOff);
        }
        let inputs = Inputs {
            unread: drain.unread,
            ..inputs(shared, &drain.gathered, true)
        };
        Ok(Drained::Published(self.publish(shared, inputs)?))
    }

    fn publish(&mut self, shared: &Shared<'_>, inputs: Inputs) -> Result<Publication, Fatal> {
        self.fresh.clear();
        self.changed = false;
        for (layer, summary) in self.progress.iter_mut().enumerate() {
            summary.rows_skipped = shared.board.rows_skipped(layer);
        }
        let solutions = self.take_latest(shared);
        let (shards, quarantined, unread) =
            (inputs.shards, inputs.quarantined_shards, inputs.unread);
        let published = self.target.publish(&solutions, &self.progress, inputs)?;
        let count = |status| solutions.iter().filter(|s| s.status == status).count();
        shared.reporter.say(&Event::Published {
            generation: published.generation,
            path: published.path.display().to_string(),
            solved: count(Status::Solved),
            starved: count(Status::Starved),
            waiting: count(Status::Waiting),
            shards,
            quarantined,
            unread,
            rank: published.rank,
        });
        for solution in solutions {
            if !matches!(solution.status, Status::Waiting | Status::Starved) {
                let layer = solution.layer;
                self.latest[layer] = Some(solution);
            }
        }
        systemd::notify(&format!(
            "STATUS=generation {}, {shards} shards",
            published.generation
        ));
        shared
            .board
            .update_now(|status| status.generation = Some(published.generation));
        if let Some(hook) = &self.hook {
            hook.published(Published {
                generation: published.generation,
                path: published.path.clone(),
                current: self.target.out.path.join("current"),
            });
        }
        Ok(published)
    }

    /// The latest solution of every layer, moved out: factors exist once.
    fn take_latest(&mut self, shared: &Shared<'_>) -> Vec<LayerSolution> {
        let latest = self.latest.iter_mut().enumerate();
        let solution = |(layer, latest): (usize, &mut Option<LayerSolution>)| {
            let status = if shared.board.rows(layer) > 0 {
                Status::Waiting
            } else {
                Status::Starved
            };
            let without = || Some(shared.solver.as_ref()?.without_factors(layer, status));
            latest.take().or_else(without)
        };
        latest.filter_map(solution).collect()
    }

    /// Ends the run when every layer that is fed has converged.
    fn check_convergence(&mut self, shared: &Shared<'_>) {
        let Until::Converged { all } = shared.settings.convergence.until else {
            return;
        };
        let fed = |layer: usize| shared.board.rows(layer) > 0;
        let done = |layer: usize| self.progress[layer].converged || (!all && !fed(layer));
        let layers = 0..self.latest.len();
        if self.converged_said || !layers.clone().all(done) || !layers.clone().any(fed) {
            return;
        }
        shared.reporter.say(&Event::AllConverged {
            layers: layers.clone().filter(|&layer| fed(layer)).count(),
            starved: layers.filter(|&layer| !fed(layer)).count(),
        });
        self.converged_said = true;
        shared.converged.store(true, Ordering::SeqCst);
        shared.wake();
    }

    /// Says once which sites have seen no row.
    fn warn_starved(&mut self, shared: &Shared<'_>) {
        if core::mem::replace(&mut self.starved_said, true) {
            return;
        }
        for site in &shared.sites.sites {
            if site
                .layers
                .iter()
                .all(|&layer| self.latest[layer].is_none())
            {
                shared.warn_starved(site);
            }
        }
    }

    /// Puts a layer on the board.
    fn show(&self, shared: &Shared<'_>, layer: usize) {
        let (Some(solution), progress) = (&self.latest[layer], self.progress[layer]) else {
            return;
        };
        let shown = LayerStatus {
            name: shared.layer(layer).name.clone(),
            status: progress.status().into(),
            rows: 0,
            rows_skipped: 0,
            rows_solved: solution.rows,
            error_without: Some(ratio(solution.error_without, solution.output_power)),
            error_with: Some(ratio(solution.factors.error, solution.output_power)),
            evidence: progress.evidence,
        };
        shared.board.update(|status| {
            let before = &status.layers[layer];
            status.layers[layer] = LayerStatus {
                rows: before.rows,
                rows_skipped: before.rows_skipped,
                ..shown
            };
        });
    }
}

fn inputs(shared: &Shared<'_>, gathered: &Gathered, drained: bool) -> Inputs {
    let (quarantined_shards, quarantined) = shared.board.refused();
    Inputs {
        shards: gathered.shards,
        empty: gathered.empty,
        unread: 0,
        quarantined_shards,
        quarantined,
        full_precision_model: gathered.full_precision,
        journal_position: gathered.position,
        journal_digest: gathered.digest.clone(),
        drained,
    }
}
