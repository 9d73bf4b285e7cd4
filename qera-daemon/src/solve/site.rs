//! One site, start to end: choose on the window, then solve every layer from everything that was
//! seen.

use crate::calibrate::blocks::Block;
use crate::calibrate::site::SiteStatistics;
use crate::disk::clock;
use crate::error::Fatal;
use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::core_time::{WorkKind, doing};
use crate::host::offload::accelerator::Accelerator;
use crate::host::offload::lent::LentDevice;
use crate::host::output_sketch::OutputSketch;
use crate::host::second_moment::metric::Metric;
use crate::host::second_moment::packed::Trace;
use crate::host::second_moment::prepared::PreparedR;
use crate::host::solve_error::SolveError;
use crate::host::subspace::error_operand::ErrorOperand;
use crate::host::subspace::operator::{ErrorOperator, SketchedOutputs};
use crate::judge::held_out::{SolvedFrom, Verdict, judge};
use crate::judge::progress::{LayerProgress, SolvePoint, SolveRecord};
use crate::judge::site_metric::site_metric;
use crate::judge::yardstick::{Yardstick, error_power, output_power};
use crate::settings::Settings;
use crate::solve::harm::Harm;
use crate::solve::projection::{Projected, Projector};
use crate::solve::rounding::Measured;
use crate::solve::solution::{FailedLayer, LayerSolution, SketchedError, SolvedSite};
use crate::weights::Weights;
use crate::weights::site_layers::{SiteLayers, rank_of};
use crate::weights::sites::Site;

use core::time::Duration;

use faer::Mat;

/// Solves sites; shared by the solver threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SiteSolver<'a> {
    /// The layers, W and W~.
    pub(crate) weights: &'a Weights,
    /// The options, of which method and dtype count here.
    pub(crate) settings: &'a Settings,
    /// The kernels that compute.
    pub(crate) compute: Compute<'a>,
    /// The device that solves may be lent.
    pub(crate) accelerator: Option<&'a Accelerator>,
}

impl<'a> SiteSolver<'a> {
    /// The layers of a site, to be judged or solved.
    #[must_use]
    pub(crate) const fn layers_of<'s>(&self, site: &'s Site) -> SiteLayers<'s>
    where
        'a: 's,
    {
        SiteLayers {
            weights: self.weights,
            settings: self.settings,
            site,
            compute: self.compute,
        }
    }

    /// Solves every layer of a site that has seen rows. Without a solve point it starts cold. At a
    /// solve point it first scores the earlier corrections on the newer rows, and starts from where
    /// these ended.
    ///
    /// A layer that cannot be solved, or whose correction would do harm, is listed as failed, and
    /// the others are solved.
    ///
    /// # Errors
    /// [`Fatal`] for what is no single layer's fault, as a weight that cannot be read.
    pub(crate) fn solve(
        &self,
        site: &'a Site,
        statistics: &SiteStatistics,
        point: Option<SolvePoint<'_>>,
    ) -> Result<SolvedSite, Fatal> {
        if let Some(gap) = statistics.sum_gap(&self.settings.solve) {
            return Ok(none_of(site, &gap.to_string()));
        }
        let device = self.lent(site, statistics);
        let layers = SiteLayers {
            compute: self.compute.beside(device.as_ref()),
            ..self.layers_of(site)
        };
        let mut solved = self.solve_layers(layers, statistics, point)?;
        if let Some(accelerator) = self.accelerator {
            let served = device.as_ref().is_some_and(LentDevice::served);
            let solved = solved.solutions.iter();
            let names = solved.map(|of| self.weights.layers()[of.layer].name.as_str());
            accelerator.worked().solved(names, served);
        }
        solved.demoted = device.map_or_else(Vec::new, LentDevice::failures);
        Ok(solved)
    }

    /// The device, for the layers of a site.
    fn lent<'s>(&self, site: &Site, statistics: &'s SiteStatistics) -> Option<LentDevice<'s>>
    where
        'a: 's,
    {
        // Only QERA-exact multiplies by the full R; f is measured under it by every method.
        let packed = statistics.second_moment.packed();
        let widths = self.layers_of(site).widths(packed.is_some())?;
        LentDevice::of(self.accelerator?, widths, packed.map(|r| r.values()))
    }

    fn solve_layers(
        &self,
        layers: SiteLayers<'_>,
        statistics: &SiteStatistics,
        mut point: Option<SolvePoint<'_>>,
    ) -> Result<SolvedSite, Fatal> {
        let site = layers.site;
        // Only QERA-exact multiplies by the full R.
        let method = self.settings.solve.method;
        let r = statistics
            .second_moment
            .packed()
            .filter(|_| method.needs_r());
        let r = r.map(|r| PreparedR::new(layers.compute, r));
        let in_f64 = r.as_ref().is_some_and(|r| r.in_f64);
        let verdict = doing(WorkKind::Choose, || judge(&layers, statistics, r.as_ref()))?;
        let metric = site_metric(method, statistics, r.as_ref(), verdict.shrinkage());
        let metric = match metric {
            Ok(metric) => metric,
            Err(reason) => return Ok(none_of(site, &reason.to_string())),
        };
        let diagonal_errors = statistics.diagonal_errors();
        let given = Given {
            layers,
            statistics,
            metric: &metric,
            r: r.as_ref(),
            in_f64,
            diagonal_errors: &diagonal_errors,
            verdict: &verdict,
        };
        let mut solved = SolvedSite::default();
        let failed = |member| verdict.failed.iter().find(|of| of.member == member);
        for (member, &layer) in site.layers.iter().enumerate() {
            if let Some(failed) = failed(member) {
                let reason = failed.reason.clone();
                solved.failed.push(FailedLayer::unsolved(layer, reason));
                continue;
            }
            let mut before = point.as_mut().map(|p| Before {
                layer: &mut p.progress.layers[member],
                newer: p.newer,
                scoring: p.scoring,
            });
            let new = match self.solve_layer(&given, member, before.as_mut()) {
                Ok(new) => new,
                Err(fatal) => {
                    let reason = fatal.of_layer()?;
                    solved.failed.push(FailedLayer::unsolved(layer, reason));
                    continue;
                }
            };
            match Harm::of(&new.solution) {
                None => solved.solutions.push(new.remembered_by(before)),
                Some(harm) => {
                    // What is left of earlier corrections must not spare the layer its next solve.
                    if let Some(before) = before {
                        *before.layer = LayerProgress::default();
                    }
                    solved
                        .failed
                        .push(FailedLayer::harmful(layer, harm.to_string()));
                }
            }
        }
        Ok(solved)
    }

    fn solve_layer(
        &self,
        given: &Given<'_>,
        member: usize,
        mut before: Option<&mut Before<'_>>,
    ) -> Result<JustSolved, Fatal> {
        let Given {
            layers,
            statistics,
            verdict,
            ..
        } = given;
        let (compute, m) = (layers.compute, statistics.in_features);
        let weight = layers.original(member)?;
        let output_power = output_power(compute, statistics, ColumnMajor::new(&weight, m));
        let values = layers.quantization_error(member, weight)?;
        let error = ColumnMajor::new(&values, m);
        let trace = error_power(compute, statistics, error);
        let error_without = trace.sum();
        let sketch = self.sketch(given, member, error)?;
        let correctable = trace_of(sketch.as_ref()).unwrap_or(error_without) > 0.0;
        if let Some(before) = &mut before {
            before.test(statistics.rows_seen(), error);
        }
        let start = before.as_ref().map(|before| &before.layer.vectors);
        let error = ErrorOperand::new(compute, error, given.in_f64);
        let of = SolvedFrom {
            statistics,
            error: &error,
            sketch: sketch.as_ref(),
        };
        let projected = if correctable {
            self.project(given, member, &of, start)?
        } else {
            Projected::nothing(&error)
        };
        let found = [&projected.vectors, &projected.beyond];
        let held_out = doing(WorkKind::Choose, || {
            verdict.held_out(layers, member, &of, found)
        })?;
        let yardstick = given.yardstick(&error, trace);
        let asked = self.settings.solve.factor_dtype;
        let measured = Measured::new(asked, &projected.correction, yardstick);
        if !measured.rounded.error.is_finite() || !measured.error_with.is_finite() {
            return Err(layers.failed(member, SolveError::Overflow));
        }
        let solution = LayerSolution {
            sketched: self.sketched(given, member, sketch.as_ref())?,
            layer: layers.site.layers[member],
            rows: statistics.rows,
            rank_used: projected.spectrum.len(),
            output_power,
            error_without,
            error_with: measured.error_with,
            error_bf16: measured.error_bf16,
            doubt: measured.doubt,
            factors: measured.rounded,
            not_as_asked: measured.not_as_asked,
            spectrum: projected.spectrum,
            choice: verdict.choice,
            held_out,
        };
        Ok(JustSolved {
            solution,
            vectors: projected.vectors,
            // Rows that were all zero so far say nothing of the rows to come.
            insensitive_to_rows: error.matrix.is_zero() || !self.settings.solve.method.uses_rows(),
        })
    }

    /// The sketch of a layer, with every row that came, where it stands for R.
    fn sketch(
        &self,
        given: &Given<'_>,
        member: usize,
        error: ColumnMajor<'_>,
    ) -> Result<Option<OutputSketch>, Fatal> {
        let outputs = given.statistics.outputs.as_ref();
        let outputs = outputs.filter(|_| self.settings.solve.method.needs_r());
        let sketch = outputs.map(|of| of.complete(member, given.layers.compute, error));
        let sketch = sketch.transpose();
        sketch.map_err(|reason| given.layers.failed(member, reason))
    }

    /// What that says of the layer's f.
    fn sketched(
        &self,
        given: &Given<'_>,
        member: usize,
        sketch: Option<&OutputSketch>,
    ) -> Result<Option<SketchedError>, Fatal> {
        let rank = rank_of(self.settings.solve.method, given.layers.layer(member));
        let sketched = sketch.map(|sketch| SketchedError::new(sketch, rank));
        let sketched = sketched.transpose();
        sketched.map_err(|reason| given.layers.failed(member, reason))
    }

    /// Projects by the method's metric.
    fn project(
        &self,
        given: &Given<'_>,
        member: usize,
        of: &SolvedFrom<'_>,
        start: Option<&Mat<f64>>,
    ) -> Result<Projected, Fatal> {
        let (layers, metric) = (&given.layers, given.metric);
        let rows = of.sketch.map(OutputSketch::matrix);
        let projector = Projector {
            compute: layers.compute,
            operator: ErrorOperator {
                error: of.error,
                metric,
                outputs: rows.as_ref().map(|rows| SketchedOutputs {
                    rows: rows.as_ref(),
                    shrinkage: given.verdict.shrinkage(),
                }),
            },
            second_moment: &given.statistics.second_moment,
            rows: given.statistics.rows,
        };
        let rank = rank_of(self.settings.solve.method, layers.layer(member));
        let projected = projector.project(rank, start);
        projected.map_err(|reason| layers.failed(member, reason))
    }
}

/// tr(G) over all rows, where a sketch says it.
fn trace_of(sketch: Option<&OutputSketch>) -> Option<f64> {
    sketch.map(|sketch| sketch.totals().trace)
}

/// Fails all layers of the site, for a reason that they share.
fn none_of(site: &Site, reason: &str) -> SolvedSite {
    let unsolved = |&layer: &usize| FailedLayer::unsolved(layer, reason.to_owned());
    let failed = site.layers.iter().map(unsolved);
    SolvedSite {
        failed: failed.collect(),
        ..SolvedSite::default()
    }
}

/// A layer that has just been solved.
struct JustSolved {
    solution: LayerSolution,
    /// Vectors that the next solve starts from.
    vectors: Mat<f64>,
    /// Whether more rows change nothing.
    insensitive_to_rows: bool,
}

impl JustSolved {
    /// The solution. Where there are solve points, the next one goes on from what this one found.
    fn remembered_by(self, before: Option<Before<'_>>) -> LayerSolution {
        let Self {
            solution,
            vectors,
            insensitive_to_rows,
        } = self;
        if let Some(Before { layer, .. }) = before {
            layer.insensitive_to_rows = insensitive_to_rows;
            let written = solution.factors.written(solution.rank_used);
            let solve = SolveRecord {
                shrinkage: solution.choice.map_or(0.0, |choice| choice.shrinkage),
                error: solution.error_with,
            };
            layer.push(written, vectors, solve);
        }
        solution
    }
}

/// What a layer carries on from the solve point before.
struct Before<'a> {
    layer: &'a mut LayerProgress,
    newer: &'a [Block],
    scoring: &'a mut Duration,
}

impl Before<'_> {
    /// Scores the corrections of earlier solve points on the newer rows.
    fn test(&mut self, rows: u64, error: ColumnMajor<'_>) {
        let begun = clock::now();
        doing(WorkKind::Measure, || {
            self.layer.test(rows, self.newer, error)
        });
        *self.scoring += clock::since(begun);
    }
}

/// What the solves of a site's layers share.
struct Given<'a> {
    layers: SiteLayers<'a>,
    statistics: &'a SiteStatistics,
    metric: &'a Metric<'a>,
    /// R, where products are taken with the whole of it.
    r: Option<&'a PreparedR<'a>>,
    /// Whether products in f32 are too inexact, so that f64 is used.
    in_f64: bool,
    /// The uncertainty of R's diagonal elements.
    diagonal_errors: &'a [f64],
    verdict: &'a Verdict<'a>,
}

impl Given<'_> {
    /// What measures the corrections of the layer with this E and tr(R E E^T).
    fn yardstick<'y>(&'y self, error: &'y ErrorOperand<'y>, trace: Trace) -> Yardstick<'y> {
        let (compute, errors) = (self.layers.compute, self.diagonal_errors);
        Yardstick::new(compute, self.statistics, self.r, error, trace, errors)
    }
}
