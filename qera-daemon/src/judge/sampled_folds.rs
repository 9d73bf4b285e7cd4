//! The folds of a site's window: each has the statistics that it is solved from (`training`), and a
//! sample of the rows of each of its blocks to be scored on (`calibrate::sample`).

use faer::Mat;

use crate::calibrate::blocks::Block;
use crate::calibrate::sample::sampled;
use crate::calibrate::site::SiteStatistics;
use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::dense::squared_lengths;
use crate::host::output_sketch::OutputSketch;
use crate::host::second_moment::channels::diagonal_scale;
use crate::host::second_moment::prepared::PreparedR;
use crate::host::second_moment::without::Scaling;
use crate::host::subspace::error_operand::ErrorOperand;
use crate::judge::scaled_sketch::ScaledSketch;
use crate::judge::scores::RowsHeldOut;
use crate::judge::shared_basis::FoldedLayer;
use crate::judge::training::{Training, extent_of, folds};
use crate::weights::site_layers::SiteLayers;

/// The number of rows that are scored of a full window, and the least of a block.
pub(crate) const SCORED_ROWS: usize = 512;
const SCORED_ROWS_MIN: usize = 8;

/// The folds of a site.
pub(crate) struct Folds<'a> {
    pub(crate) parts: Vec<Part<'a>>,
    /// R as it is multiplied by; `None` where S is a diagonal.
    pub(crate) r: Option<&'a PreparedR<'a>>,
    /// How the diagonal of R is scaled, where sketches stand for the rest.
    sketched: Option<Scaling>,
    /// Whether products in f32 are too inexact, so that f64 is used.
    pub(crate) in_f64: bool,
    pub(crate) rows: RowsHeldOut,
}

/// A fold: the statistics without its rows, and the rows of each of its blocks that score the
/// correction.
pub(crate) struct Part<'a> {
    pub(crate) training: Training<'a>,
    pub(crate) samples: Vec<Sample>,
}

/// Sampled rows of a block, each times the square root of its weight. The squared length of such a
/// row's image under any matrix then counts by the row's weight.
pub(crate) struct Sample {
    pub(crate) values: Vec<f32>,
    /// The sum of the rows' weights, in the units of the roots.
    pub(crate) weight: f64,
}

impl Sample {
    /// x E V for these rows, given T^T = s (E V)^T: b x rows, scaled by s.
    pub(crate) fn along(&self, compute: Compute<'_>, t: &Mat<f64>, in_f64: bool) -> Mat<f64> {
        let rows = compute.operand(ColumnMajor::new(&self.values, t.ncols()));
        if in_f64 {
            rows.times_f64(t.as_ref())
        } else {
            rows.times(t.as_ref())
        }
    }

    /// The mean of |x E|^2 over the rows.
    pub(crate) fn without(&self, error: &ErrorOperand<'_>) -> f64 {
        self.mean_power(&error.outputs(&self.values))
    }

    /// Mean over the rows of the squared length of their images.
    pub(crate) fn mean_power(&self, images: &Mat<f64>) -> f64 {
        squared_lengths(images).sum::<f64>() / self.weight
    }
}

/// A sample of rows spread over a block, or all of its rows where the site has few.
fn sample(block: &Block, rows_in_all: usize) -> Sample {
    let rows = block.stored();
    let share = (SCORED_ROWS * rows.rows()).div_ceil(rows_in_all.max(1));
    let count = share.max(SCORED_ROWS_MIN).min(rows.rows());
    let drawn = sampled(rows, block.number, count);
    let (rows, m) = (drawn.stored(), block.in_features);
    let mut values = vec![0.0; count * m];
    rows.widen(0..values.len(), &mut values);
    let Some(weights) = rows.weights else {
        let weight = count as f64;
        return Sample { values, weight };
    };
    let mut weight = 0.0;
    for (i, to) in values.chunks_exact_mut(m).enumerate() {
        let root = weights.root(i);
        to.iter_mut().for_each(|x| *x *= root);
        weight += f64::from(root).powi(2);
    }
    Sample { values, weight }
}

impl<'a> Folds<'a> {
    /// Makes folds of these blocks of the window, for these candidates.
    pub(crate) fn new(
        layers: &SiteLayers<'a>,
        statistics: &'a SiteStatistics,
        blocks: &[&'a Block],
        r: Option<&'a PreparedR<'a>>,
        candidates: &[f64],
    ) -> Self {
        let (compute, method) = (layers.compute, layers.settings.solve.method);
        let in_f64 = r.is_some_and(|r| r.in_f64);
        let is_whole = method.needs_r() && candidates.iter().any(|a| *a < 1.0);
        let r = r.filter(|_| is_whole);
        let sketches = statistics.outputs.as_ref().filter(|_| is_whole);
        let sketched = sketches.map(|_| Scaling {
            scale: diagonal_scale(&statistics.diagonal()),
            in_f64: false,
        });
        let scaling = r.map(Scaling::of).or(sketched);
        let in_all = usize::try_from(extent_of(blocks).rows).unwrap_or(usize::MAX);
        let mut rows = RowsHeldOut {
            solved: statistics.rows,
            tested: 0,
        };
        let mut parts = Vec::new();
        for fold in folds(statistics, blocks) {
            let training =
                Training::without(compute, method, statistics, scaling, fold, candidates);
            let Some(training) = training else {
                continue;
            };
            let samples: Vec<_> = fold.iter().map(|block| sample(block, in_all)).collect();
            let tested = samples.iter().map(|sample| sample.values.len());
            rows.tested += (tested.sum::<usize>() / statistics.in_features) as u64;
            if training.uses_rows {
                let left = statistics.rows - extent_of(fold).rows;
                rows.solved = rows.solved.min(left);
            }
            parts.push(Part { training, samples });
        }
        Self {
            parts,
            r,
            sketched,
            in_f64,
            rows,
        }
    }

    /// A layer's sketch as it is multiplied by, where sketches stand for R.
    pub(crate) fn scaled(
        &self,
        sketch: Option<&OutputSketch>,
        error: &ErrorOperand<'_>,
        statistics: &SiteStatistics,
    ) -> Option<ScaledSketch> {
        let (scaling, sketch) = (self.sketched?, sketch?);
        let diagonal = statistics.diagonal();
        Some(ScaledSketch::new(sketch, error, diagonal, scaling.scale))
    }

    /// The layer with this E, as the folds solve it.
    pub(crate) fn layer<'l>(
        &'l self,
        compute: Compute<'l>,
        error: &'l ErrorOperand<'l>,
        sketch: Option<&'l ScaledSketch>,
        rank: usize,
    ) -> FoldedLayer<'l> {
        FoldedLayer {
            compute,
            error,
            r: self.r,
            sketch,
            in_f64: self.in_f64,
            rank,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cores::Cores;
    use crate::host::kernels::Kernel;

    /// Rows of different number than outputs: the mean is over the rows.
    #[test]
    fn the_power_of_outputs_is_a_mean_over_rows() {
        let cores = Cores::new(1);
        let compute = Compute::new(Kernel::best(), &cores);
        // E = [[1, 0, 2], [0, 3, 0]] by columns; rows (1, 1) and (2, 0): |x E|^2 = 14 and 20.
        let error = ColumnMajor::new(&[1.0, 0.0, 0.0, 3.0, 2.0, 0.0], 2);
        let y = ErrorOperand::new(compute, error, false).outputs(&[1.0, 1.0, 2.0, 0.0]);
        let sample = Sample {
            values: Vec::new(),
            weight: 2.0,
        };
        assert!((sample.mean_power(&y) - 17.0).abs() < 1e-9);
    }
}
