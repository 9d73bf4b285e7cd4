//! One site, start to end: choose on the window, then solve every layer from everything that was seen.

use core::time::Duration;
use std::time::Instant;

use qera_core::dtype::FloatDtype;

use crate::calibrate::site::SiteStatistics;
use crate::calibrate::window::Block;
use crate::error::Fatal;
use crate::host::compute::Compute;
use crate::host::factors::{Correction, Rounded};
use crate::host::kernels::page_vec::PageVec;
use crate::host::second_moment::metric::{Metric, diagonal_scale};
use crate::host::second_moment::packed::PackedR;
use crate::host::subspace::basis::eigen;
use crate::host::subspace::error_matrix::{ErrorByRows, ErrorMatrix};
use crate::host::subspace::operator::ErrorOperator;
use crate::host::subspace::top::{Effort, top_subspace};
use crate::judge::held_out::{Choice, HeldOut, Verdict, judge};
use crate::judge::progress::{LayerProgress, SolvePoint, SolveRecord};
use crate::judge::site_metric::site_metric;
use crate::judge::yardstick::{Yardstick, power};
use crate::settings::Settings;
use crate::weights::Weights;
use crate::weights::site_layers::{SiteLayers, rank_of};
use crate::weights::sites::Site;

/// A layer that loses more of f than this by rounding is written f32.
const ROUNDING_LOSS_MAX: f64 = 1e-3;

/// What became of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Solved.
    Solved,
    /// Its site has seen no row: zero factors.
    Starved,
    /// Its site has seen too few rows for the first solve point: zero factors until then.
    Waiting,
    /// The output error is zero already: zero factors.
    NothingToCorrect,
}

/// The correction of one layer and its worth. Errors are f = tr(R P P^T): mean squared output error of
/// a row, summed over the outputs, on the rows seen.
#[derive(Debug, Clone)]
pub struct LayerSolution {
    /// Index into the selected layers.
    pub layer: usize,
    /// What became of it.
    pub(crate) status: Status,
    /// Rows that its statistics are the mean of.
    pub(crate) rows: u64,
    /// Rank really used: at most the numerical rank of the problem.
    pub rank_used: usize,
    /// tr(R W W^T).
    pub output_power: f64,
    /// f without correction.
    pub error_without: f64,
    /// f with the correction, before rounding.
    pub error_with: f64,
    /// f when what is written is rounded to bf16: what a bf16 engine applies (infinite: overflow).
    pub(crate) error_bf16: f64,
    /// The factors as they are written, with f after that rounding.
    pub factors: Rounded,
    /// Set when the asked dtype lost too much: what f would have been (infinite: overflow).
    pub(crate) error_in_asked_dtype: Option<f64>,
    /// Eigenvalues of G = E^T S E that the method captured, largest first; for QERA-exact without shrinkage
    /// they add up to what the correction takes off f.
    pub spectrum: Vec<f64>,
    /// The shrinkage, for QERA-exact.
    pub choice: Option<Choice>,
    /// Error on held-out rows.
    pub held_out: Option<HeldOut>,
}

/// Solves sites; shared by the solver threads.
#[derive(Debug, Clone, Copy)]
pub struct SiteSolver<'a> {
    /// The layers, W and W~.
    pub weights: &'a Weights,
    /// Method, dtype.
    pub settings: &'a Settings,
    /// Where it is computed.
    pub host: Compute<'a>,
}

impl<'a> SiteSolver<'a> {
    /// The layers of a site, to be judged or solved.
    #[must_use]
    pub(crate) const fn layers_of(&self, site: &'a Site) -> SiteLayers<'a> {
        SiteLayers {
            weights: self.weights,
            settings: self.settings,
            site,
            host: self.host,
        }
    }

    /// Solves every layer of the site: from a cold start, or, at a solve point, after scoring the earlier corrections on
    /// the newer rows and from where they ended.
    ///
    /// # Errors
    /// [`Fatal`] naming the layer: a NaN or infinite weight, or products that overflow.
    pub fn solve(
        &self,
        site: &'a Site,
        statistics: &SiteStatistics,
        mut point: Option<SolvePoint<'_>>,
    ) -> Result<Vec<LayerSolution>, Fatal> {
        if statistics.rows == 0 {
            let without = |&layer| self.without_factors(layer, Status::Starved);
            return Ok(site.layers.iter().map(without).collect());
        }
        let packed = statistics
            .keeps_r()
            .then(|| PackedR::new(&statistics.autocorrelation, statistics.in_features));
        let scale = diagonal_scale(&statistics.diagonal());
        // Only QERA-exact multiplies by the full R.
        let method = self.settings.solve.method;
        let full = match packed {
            Some(packed) if method.needs_r() => packed.to_f32(self.host, scale),
            _ => PageVec::default(),
        };
        let layers = self.layers_of(site);
        let verdict = judge(
            method,
            self.settings.solve.shrinkage,
            statistics,
            &full,
            &layers,
        )?;
        let metric = site_metric(method, statistics, packed, scale, &full, verdict.choice)?;
        let given = Given {
            layers,
            statistics,
            r: packed,
            metric: &metric,
            verdict: &verdict,
        };
        let mut solutions = Vec::new();
        for member in 0..site.layers.len() {
            let before = point.as_mut().map(|p| Before {
                layer: &mut p.progress.layers[member],
                newer: p.newer,
                scoring: p.scoring,
            });
            solutions.push(self.solve_layer(&given, member, before)?);
        }
        Ok(solutions)
    }

    fn solve_layer(
        &self,
        given: &Given<'_>,
        member: usize,
        mut before: Option<Before<'_>>,
    ) -> Result<LayerSolution, Fatal> {
        let Given {
            layers,
            statistics,
            r,
            verdict,
            ..
        } = given;
        let layer = layers.layer(member);
        let weight = layers.original(member)?;
        let power = |matrix: ErrorMatrix<'_>| power(self.host, *r, &statistics.window, matrix);
        let output_power = power(ErrorMatrix::new(&weight, layer.in_features));
        let values = layers.quantization_error(member, weight)?;
        let error = ErrorMatrix::new(&values, layer.in_features);
        let error_without = power(error);
        let correctable = error_without > 0.0;
        if let Some(before) = &mut before {
            before.test(statistics.rows_seen(), error);
        }
        let start = before.as_ref().map(|before| &before.layer.vectors);
        let by_rows = ErrorByRows::new(self.host, error);
        let projected = if correctable {
            self.project(given, member, (error, &by_rows), start)?
        } else {
            Projected::nothing(error)
        };
        let yardstick = Yardstick {
            host: self.host,
            r: *r,
            window: &statistics.window,
            error,
            error_by_rows: &by_rows,
            error_without,
            by_rows: false,
        };
        let asked = self.settings.solve.factor_dtype;
        let measured = Measured::new(asked, &projected.correction, yardstick);
        if !measured.rounded.error.is_finite() || !measured.error_with.is_finite() {
            return Err(layers.failed(
                member,
                "products overflow: the weights or activations are too large".into(),
            ));
        }
        let rank_used = projected.spectrum.len();
        if let Some(Before { layer, .. }) = before {
            layer.insensitive_to_rows = !correctable || !self.settings.solve.method.uses_rows();
            let solved = SolveRecord {
                shrinkage: verdict.choice.map_or(0.0, |c| c.shrinkage),
                error: measured.error_with,
            };
            layer.push(rank_used, &measured.rounded, projected.vectors, solved);
        }
        Ok(LayerSolution {
            layer: layers.site.layers[member],
            status: if correctable {
                Status::Solved
            } else {
                Status::NothingToCorrect
            },
            rows: statistics.rows,
            rank_used,
            output_power,
            error_without,
            error_with: measured.error_with,
            error_bf16: measured.error_bf16,
            factors: measured.rounded,
            error_in_asked_dtype: measured.error_in_asked_dtype,
            spectrum: projected.spectrum,
            choice: verdict.choice,
            held_out: verdict.held_out[member],
        })
    }

    /// V by the method's metric, rotated to the eigenvectors of V^T G V in f64, cut at the numerical rank.
    fn project(
        &self,
        given: &Given<'_>,
        member: usize,
        (error, by_rows): (ErrorMatrix<'_>, &ErrorByRows),
        start: Option<&faer::Mat<f64>>,
    ) -> Result<Projected, Fatal> {
        let (layers, metric) = (&given.layers, given.metric);
        let most = row_rank(metric, given.statistics.rows);
        let rank = rank_of(self.settings.solve.method, layers.layer(member)).min(most);
        if rank == 0 {
            return Ok(Projected::nothing(error));
        }
        let operator = ErrorOperator::new(self.host, error, metric, by_rows);
        let failed = |reason| layers.failed(member, reason);
        let effort = match start {
            Some(vectors) if vectors.ncols() > 0 => Effort::Warm(vectors),
            _ => Effort::Final,
        };
        let found = top_subspace(&operator, rank, effort).map_err(failed)?;
        let found = found.vectors;
        let (correction, spectrum) =
            correct(&operator, found.as_ref(), rank, given.r).map_err(failed)?;
        Ok(Projected {
            correction,
            spectrum,
            vectors: found,
        })
    }

    /// A layer that has no correction yet.
    #[must_use]
    pub(crate) fn without_factors(&self, index: usize, status: Status) -> LayerSolution {
        LayerSolution {
            layer: index,
            status,
            rows: 0,
            rank_used: 0,
            output_power: 0.0,
            error_without: 0.0,
            error_with: 0.0,
            error_bf16: 0.0,
            factors: Rounded {
                dtype: self.settings.solve.factor_dtype,
                lora_a: Vec::new(),
                lora_b: Vec::new(),
                error: 0.0,
            },
            error_in_asked_dtype: None,
            spectrum: Vec::new(),
            choice: None,
            held_out: None,
        }
    }
}

/// What a layer carries on at a solve point.
struct Before<'a> {
    layer: &'a mut LayerProgress,
    newer: &'a [Block],
    scoring: &'a mut Duration,
}

impl Before<'_> {
    /// Scores the corrections of the solve points before on the newer rows.
    fn test(&mut self, rows: u64, error: ErrorMatrix<'_>) {
        let begun = Instant::now();
        self.layer.test(rows, self.newer, error);
        *self.scoring += begun.elapsed();
    }
}

/// What the layers of a site have in common in a solve.
struct Given<'a> {
    layers: SiteLayers<'a>,
    statistics: &'a SiteStatistics,
    r: Option<PackedR<'a>>,
    metric: &'a Metric<'a>,
    verdict: &'a Verdict,
}

/// The factors, the captured eigenvalues, and the vectors that a warm solve starts from.
struct Projected {
    correction: Correction,
    spectrum: Vec<f64>,
    vectors: faer::Mat<f64>,
}

impl Projected {
    fn nothing(error: ErrorMatrix<'_>) -> Self {
        Self {
            correction: Correction::none(error.m, error.n),
            spectrum: Vec::new(),
            vectors: faer::Mat::zeros(error.n, 0),
        }
    }
}

/// A correction as it is written, and what it is worth.
struct Measured {
    error_with: f64,
    rounded: Rounded,
    error_in_asked_dtype: Option<f64>,
    error_bf16: f64,
}

impl Measured {
    fn new(asked: FloatDtype, correction: &Correction, mut yardstick: Yardstick<'_>) -> Self {
        let error_with = yardstick.choose(correction);
        let (rounded, error_in_asked_dtype) = round(asked, correction, &yardstick, error_with);
        Self {
            error_with,
            error_bf16: yardstick.of_rounded(&rounded.in_bf16(), correction),
            rounded,
            error_in_asked_dtype,
        }
    }
}

/// The correction by the first `rank` of the vectors found, and its eigenvalues: T = E V and R T in f64 once, from which
/// everything else follows.
fn correct(
    operator: &ErrorOperator<'_>,
    found: faer::MatRef<'_, f64>,
    rank: usize,
    r: Option<PackedR<'_>>,
) -> Result<(Correction, Vec<f64>), String> {
    let error = operator.error;
    let v = found.subcols(0, rank.min(found.ncols()));
    let t = operator.by_rows.times_v_f64(operator.host, v);
    let rt = r.map_or_else(
        || faer::Mat::zeros(error.m, 0),
        |r| r.times(operator.host, t.as_ref()),
    );
    let (rotation, spectrum) = eigen(&operator.metric.rayleigh(&t, &rt))?;
    let largest = spectrum.first().copied().unwrap_or_default();
    let noise = largest * f64::EPSILON * error.n.max(error.m) as f64;
    let used = spectrum.iter().take_while(|&&value| value > noise).count();
    let correction = Correction::project(v, &t, &rt, rotation.as_ref().subcols(0, used));
    Ok((correction, spectrum[..used].to_vec()))
}

/// The factors in the asked dtype, or in f32 where that would lose too much; f in the asked one is returned then.
fn round(
    asked: FloatDtype,
    correction: &Correction,
    yardstick: &Yardstick<'_>,
    error_with: f64,
) -> (Rounded, Option<f64>) {
    let measured = |dtype| {
        let mut rounded = correction.factors.round(dtype);
        rounded.error = yardstick.of_rounded(&rounded, correction);
        rounded
    };
    let rounded = measured(asked);
    let lost = rounded.error - error_with;
    let too_much =
        lost.is_nan() || lost > ROUNDING_LOSS_MAX * error_with + 1e-12 * yardstick.error_without;
    if !too_much || asked == FloatDtype::F32 {
        return (rounded, None);
    }
    (measured(FloatDtype::F32), Some(rounded.error))
}

/// The rank that the rows allow: R itself has no more than there are rows, and what f32 sums leave beyond
/// that is noise. Shrinkage and the diagonal methods make S full.
fn row_rank(metric: &Metric<'_>, rows: u64) -> usize {
    match metric {
        Metric::Shrunk { shrinkage, .. } if *shrinkage <= 0.0 => {
            usize::try_from(rows).unwrap_or(usize::MAX)
        }
        _ => usize::MAX,
    }
}
