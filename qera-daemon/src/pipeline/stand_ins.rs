//! Corrections by an imatrix, for layers that have none from rows.
//!
//! These corrections depend on the imatrix and the weights alone. So each is solved once, when the
//! first generation is about to be written in which the layer would have none. They are in no
//! state, and a layer with one does not count as fed.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use qera_core::reconstruct::Method;

use crate::calibrate::imatrix::{GivenSite, GivenStatistics};
use crate::error::Fatal;
use crate::host::core_time::{WorkKind, doing};
use crate::pipeline::context::Context;
use crate::settings::Settings;
use crate::settings::solve::SolveSettings;
use crate::solve::site::SiteSolver;
use crate::solve::solution::{LayerSolution, SolvedSite};

/// The corrections by an imatrix.
pub(crate) struct StandIns<'a> {
    context: &'a Context<'a>,
    given: &'a GivenStatistics,
    /// The run's settings, with the method for which E[x^2] is enough.
    settings: Settings,
    /// The solution of each layer; `None` where none was needed yet.
    solved: Vec<Option<LayerSolution>>,
    /// Layers that cannot be solved; that does not change.
    failed: BTreeSet<usize>,
}

impl<'a> StandIns<'a> {
    /// Stand-ins of which none is solved yet; `None` where no imatrix was given.
    pub(crate) fn new(context: &'a Context<'a>) -> Option<Self> {
        let given = context.imatrix?;
        let solve = SolveSettings {
            method: Method::of_mean_squares(),
            ..context.settings.solve
        };
        Some(Self {
            context,
            given,
            settings: Settings {
                solve,
                ..context.settings.clone()
            },
            solved: (0..given.layers.len()).map(|_| None).collect(),
            failed: BTreeSet::new(),
        })
    }

    /// Whether the imatrix has an entry for a layer of any site.
    pub(crate) fn are_any(&self) -> bool {
        self.given.says_something()
    }

    /// The correction of a layer, if it was solved.
    pub(crate) fn of(&self, layer: usize) -> Option<&LayerSolution> {
        self.solved.get(layer)?.as_ref()
    }

    /// Solves and reports the layers that are still without a correction by rows.
    ///
    /// # Errors
    /// The first [`Fatal`], in the order of the sites, naming the layer.
    pub(crate) fn complete(&mut self, latest: &[Option<LayerSolution>]) -> Result<(), Fatal> {
        let Some(solver) = self.context.solver else {
            return Ok(());
        };
        let solver = SiteSolver {
            settings: &self.settings,
            ..solver
        };
        let lacks = |layer: &usize| {
            let is_there = latest[*layer].is_some() || self.solved[*layer].is_some();
            !is_there && !self.failed.contains(layer)
        };
        let given = self.given.sites.iter().flatten();
        let due: Vec<&GivenSite> = given
            .filter(|of| of.site.layers.iter().any(lacks))
            .collect();
        let answers: Vec<Mutex<Option<Answer>>> = due.iter().map(|_| Mutex::default()).collect();
        let context = self.context;
        let core = context.take_core();
        let pieces: Vec<usize> = (0..due.len()).collect();
        context.cores.spread(pieces, |piece: usize| {
            if context.failed() {
                return;
            }
            let GivenSite { site, statistics } = due[piece];
            let solve = || solver.solve(site, statistics, None);
            let solved = doing(WorkKind::Subspace, solve);
            *answers[piece]
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(solved);
        });
        drop(core);
        for (of, answer) in due.iter().zip(answers) {
            // A stage that failed ends the run, so that nothing is published.
            let answer = answer.into_inner().unwrap_or_else(PoisonError::into_inner);
            let Some(solved) = answer.transpose()? else {
                continue;
            };
            let SolvedSite {
                solutions,
                failed,
                demoted,
            } = solved;
            context.tell_demoted(&of.site.name, &demoted);
            for failed in failed {
                if latest[failed.layer].is_none() && self.failed.insert(failed.layer) {
                    context.tell_failed(&failed, false);
                }
            }
            for solution in solutions {
                let layer = solution.layer;
                if latest[layer].is_none() {
                    context.report_stand_in(&solution);
                    context.reporter.step(&context.layer(layer).name);
                    context.ledger.stood_in(layer);
                }
                self.solved[layer] = Some(solution);
            }
        }
        Ok(())
    }
}

/// The outcome of a site.
type Answer = Result<SolvedSite, Fatal>;
