//! What the pipeline says of a site before it is solved, and of a layer after that.

use std::sync::PoisonError;

use crate::calibrate::site::SiteStatistics;
use crate::judge::closing::{Drift, FoldingChange};
use crate::observe::event::Event;
use crate::observe::imatrix_events::LayerStoodIn;
use crate::observe::layer_events::{ErrorRise, LayerCorrected, LayerReopened, SiteClosed};
use crate::observe::run_events::GenerationRejected;
use crate::observe::sketch_events::LayerSketched;
use crate::observe::systemd;
use crate::pipeline::context::Context;
use crate::publish::ratio::ratio;
use crate::settings::convergence::Until;
use crate::solve::solution::{FailedLayer, Failure, LayerSolution, NotAsAsked};
use crate::weights::layers::Layer;
use crate::weights::sites::Site;

impl Context<'_> {
    /// The selected layer with this index; wherever something is solved there are layers.
    pub(crate) fn layer(&self, index: usize) -> &Layer {
        let layers = self
            .solver
            .map_or(&[][..], |solver| solver.weights.layers());
        &layers[index]
    }

    /// The site's name in messages.
    pub(crate) fn name_of(&self, site: usize) -> String {
        let site = self.sites.sites.get(site);
        site.map_or_else(String::new, |site| site.name.clone())
    }

    /// Warns about `subject`, with this message.
    pub(crate) fn warn_of(&self, subject: &str, message: String) {
        self.reporter.say(&Event::Warning { subject, message });
    }

    /// Warns that a device failed for a site, and in what.
    pub(crate) fn tell_demoted(&self, site: &str, failures: &[String]) {
        if let Some(first) = failures.first() {
            let more = match failures.len() - 1 {
                0 => String::new(),
                more => format!("; {} more", plural(more, "failure")),
            };
            let message = format!("the CUDA device failed, the CPU goes on ({first}{more})");
            self.warn_of(site, message);
        }
    }

    /// Warns about a site that has had no row.
    pub(crate) fn warn_starved(&self, site: &Site) {
        self.reporter.say(&Event::Warning {
            subject: &site.name,
            message: format!(
                "no row seen: {} starved",
                plural(site.layers.len(), "layer")
            ),
        });
    }

    /// Warns about what makes a correction weak: fewer rows than channels, dead channels. Each is
    /// said once of a site, however often it is solved.
    pub(crate) fn warn(&self, site: &Site, statistics: &SiteStatistics) {
        let warn = |kind: &str, message| {
            let said = self.warned.lock();
            let mut said = said.unwrap_or_else(PoisonError::into_inner);
            if said.insert(format!("{}: {kind}", site.name)) {
                self.reporter.say(&Event::Warning {
                    subject: &site.name,
                    message,
                });
            }
        };
        let (m, rows) = (site.in_features, statistics.rows);
        if !self.settings.solve.method.corrects() {
            return;
        }
        let dead = statistics
            .mean_squares()
            .iter()
            .filter(|d| **d <= 0.0)
            .count();
        if dead == m {
            warn(
                "zeros",
                format!("all {m} channels are zero in all {rows} rows: nothing to correct"),
            );
            return;
        }
        if rows < m as u64 {
            let rows = plural(rows.try_into().unwrap_or(usize::MAX), "row");
            warn(
                "few rows",
                format!("{rows} for {m} channels: R is singular, more rows will help"),
            );
        }
        if statistics.has_sums_alone() && statistics.sum_gap(&self.settings.solve).is_none() {
            let message = match self.settings.convergence.until {
                Until::Converged { .. } => {
                    ", and the run cannot see that its layers converge: record some blocks as rows \
                     beside the sums"
                }
                Until::Once | Until::Signal => "",
            };
            warn(
                "sums alone",
                format!("all {rows} rows came as sums: there is no held-out error{message}"),
            );
        }
        if dead > 0 {
            let dead = plural(dead, "channel");
            warn("dead", format!("{dead} of {m} never differ from zero"));
        }
    }

    /// Says that a site was closed or re-opened at this number of rows.
    pub(crate) fn tell_folding_change(&self, site: &Site, rows: u64, change: &FoldingChange) {
        match change {
            FoldingChange::None => {}
            FoldingChange::Closed => self.reporter.say(&Event::Closed(SiteClosed {
                site: &site.name,
                rows,
                share: self.settings.convergence.after.share(),
            })),
            FoldingChange::Reopened(drifts) => {
                for &(member, drift) in drifts {
                    let (error, gain_lower) = match drift {
                        Drift::Error { before, now } => (Some(ErrorRise { before, now }), None),
                        Drift::Gain(lower) => (None, Some(lower)),
                    };
                    self.reporter.say(&Event::Reopened(LayerReopened {
                        layer: &self.layer(site.layers[member]).name,
                        rows,
                        error,
                        gain_lower,
                    }));
                }
            }
        }
    }

    /// Reports a layer that an imatrix stands in for, with what is remarkable about it.
    pub(crate) fn report_stand_in(&self, solution: &LayerSolution) {
        self.report_rank_and_dtype(solution, "its diagonal error");
        let power = solution.output_power;
        self.reporter.say(&Event::Imatrix(LayerStoodIn {
            layer: &self.layer(solution.layer).name,
            rank: solution.rank_used,
            diagonal_error_without: ratio(solution.error_without, power),
            diagonal_error_with: ratio(solution.factors.error, power),
        }));
    }

    /// Says that a generation did not pass its check, and enters it in the ledger.
    pub(crate) fn tell_rejected(&self, rejected: GenerationRejected) {
        self.reporter.say(&Event::Rejected(rejected.clone()));
        systemd::notify(&format!(
            "STATUS=generation {} did not pass its check",
            rejected.generation
        ));
        self.ledger.rejected(rejected);
    }

    /// Warns about a layer without a new correction, and enters it in the ledger. `keeps` says
    /// whether its earlier correction stays.
    pub(crate) fn tell_failed(&self, failed: &FailedLayer, keeps: bool) {
        let becomes = if keeps {
            "keeps its last correction"
        } else {
            "goes out uncorrected"
        };
        self.ledger.failed(failed.layer, failed.failure);
        let why = match failed.failure {
            Failure::Unsolved => "cannot be solved: ",
            Failure::Harmful => "",
        };
        self.reporter.say(&Event::Warning {
            subject: &self.layer(failed.layer).name,
            message: format!("{why}{}; it {becomes}", failed.reason),
        });
    }

    /// Reports a solved layer, with what is remarkable about it.
    pub(crate) fn report(&self, solution: &LayerSolution) {
        if let Some(sketched) = solution.sketched {
            self.report_rank_and_dtype(solution, "its error on the window's rows");
            self.reporter.say(&Event::LayerSketched(LayerSketched {
                layer: &self.layer(solution.layer).name,
                rank: solution.rank_used,
                trace: sketched.trace,
                optimum: sketched.optimum,
                window_error_without: ratio(solution.error_without, solution.output_power),
                window_error_with: ratio(solution.factors.error, solution.output_power),
                held_out_ratio: solution.held_out_ratio(),
                shrinkage: solution.choice.map(|c| c.shrinkage),
            }));
            return;
        }
        self.report_rank_and_dtype(solution, "its error");
        self.reporter.say(&Event::LayerSolved(LayerCorrected {
            layer: &self.layer(solution.layer).name,
            rank: solution.rank_used,
            error_without: ratio(solution.error_without, solution.output_power),
            error_with: ratio(solution.factors.error, solution.output_power),
            held_out_ratio: solution.held_out_ratio(),
            shrinkage: solution.choice.map(|c| c.shrinkage),
        }));
    }

    /// Warns where a layer's rank or dtype is not the asked one. `error` names the measure that
    /// decided.
    fn report_rank_and_dtype(&self, solution: &LayerSolution, error: &str) {
        let layer = self.layer(solution.layer);
        let subject = layer.name.as_str();
        let warn = |message| self.reporter.say(&Event::Warning { subject, message });
        if layer.rank_asked > layer.rank {
            warn(format!(
                "rank {} is above min(in_features, out_features): {} is used",
                layer.rank_asked, layer.rank
            ));
        }
        if solution.is_needed()
            && self.settings.solve.method.corrects()
            && solution.rank_used < layer.rank
        {
            warn(format!(
                "numerical rank {} is below rank {}: the rest is zero",
                solution.rank_used, layer.rank
            ));
        }
        if let Some(reason) = solution.not_as_asked {
            let asked = self.settings.solve.factor_dtype.name();
            let reason = match reason {
                NotAsAsked::Loses(lost) => {
                    let with = solution.error_with;
                    format!("{asked} would raise {error} from {with:.4e} to {lost:.4e}")
                }
                NotAsAsked::Overflows => format!("its factors overflow in {asked}"),
                NotAsAsked::NoWholeBlocks => {
                    let width = layer.in_features;
                    format!("in_features is {width}, no multiple of {asked}'s blocks of 32")
                }
            };
            warn(format!(
                "written {}: {reason}",
                solution.factors.dtype.name()
            ));
        }
    }
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}
