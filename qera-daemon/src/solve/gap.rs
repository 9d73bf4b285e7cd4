//! Whether a solve would pay: the gap between the correction that there is and the best one for the R of today.
//!
//! For C = E V V^T under R', f(C) = tr G' - tr(V^T G' V), so that the gap is sum_{i<=k} lambda_i(G') - tr(V^T G' V) >= 0
//! (design 3.4). One application of G' to the vectors kept beside V gives both: the trace, and by Rayleigh-Ritz with its
//! residuals (as in `subspace`) what the sum of the top eigenvalues is, about. G' is taken with the shrinkage that the
//! correction was solved with.
//!
//! Only for QERA-exact and QERA-approx: the other methods' S has another unit than f.
//!
//! A site whose layers could all gain less than a tenth of the tolerance is only scored at this solve point: what its
//! corrections gained over those before, on rows newer than all of them. That is evidence like any other: the pair is the same,
//! the rows are not, and the correction that was spared would have gained less still. The site is solved at the next
//! point in any case, because a better shrinkage is found by solving only. The last generation is solved from everything,
//! as always.

use qera_core::reconstruct::Method;
use serde::{Deserialize, Serialize};

use crate::calibrate::SiteStatistics;
use crate::checkpoint::Site;
use crate::error::Stop;

use super::basis::{eigen, product, turned};
use super::error_matrix::{ErrorMatrix, TurnedError};
use super::evidence::LayerProgress;
use super::held_out::{Choice, ChoiceOrigin};
use super::layers::SiteLayers;
use super::metric::{Metric, diagonal_scale};
use super::packed_r::PackedR;
use super::schedule::SiteProgress;
use super::site::SiteSolver;

/// The share of the tolerance that a solve has to be able to gain.
const WORTH: f64 = 0.1;

/// How the latest correction of a layer was solved.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Solved {
    /// a.
    pub shrinkage: f64,
    /// f of it, before rounding.
    pub error: f64,
}

impl SiteSolver<'_> {
    /// Whether a solve could gain more than a tenth of the tolerance in one of the site's layers, or that is not known.
    /// Costs one application of G to the vectors kept, a layer.
    ///
    /// # Errors
    /// [`Stop`] naming the layer: a NaN or infinite weight, or products that overflow.
    pub fn pays(
        &self,
        site: &Site,
        statistics: &SiteStatistics,
        progress: &SiteProgress,
    ) -> Result<bool, Stop> {
        let known = |layer: &LayerProgress| {
            layer.settled || (layer.solved.is_some() && layer.vectors.ncols() > 0)
        };
        // The gap is one in f only where S is that of f, or its diagonal.
        let in_f = matches!(self.settings.method, Method::Exact | Method::Approx);
        if !in_f || progress.spared || !progress.layers.iter().all(known) {
            return Ok(true);
        }
        let packed = statistics
            .keeps_r()
            .then(|| PackedR::new(&statistics.autocorrelation, statistics.in_features));
        let scale = diagonal_scale(&statistics.diagonal());
        let layers = SiteLayers {
            checkpoint: self.checkpoint,
            host: self.host,
            settings: self.settings,
            layers: self.layers,
            site,
        };
        for (member, layer) in progress.layers.iter().enumerate() {
            if layer.settled {
                continue; // Nothing changes it.
            }
            let Some(solved) = layer.solved else {
                return Ok(true);
            };
            let choice = Choice {
                shrinkage: solved.shrinkage,
                origin: ChoiceOrigin::Given,
            };
            let metric = self.metric(statistics, packed, scale, &[], Some(choice))?;
            let values = layers.error(member)?;
            let error = ErrorMatrix::of(layers.layer(member), &values);
            let gap = self
                .gap(error, &metric, layer)
                .map_err(|reason| layers.failed(member, reason))?;
            // A NaN pays.
            let small = gap <= WORTH * self.settings.tolerance * solved.error;
            if !small {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What the layer's latest correction lacks of the optimum under this metric, about.
    fn gap(
        &self,
        error: ErrorMatrix<'_>,
        metric: &Metric<'_>,
        layer: &LayerProgress,
    ) -> Result<f64, String> {
        let k = layer.corrections.first().map_or(0, |c| c.rank);
        let v = layer.vectors.as_ref();
        if k == 0 {
            return Ok(f64::INFINITY);
        }
        let rows = TurnedError::new(self.host, error);
        let t = turned(rows.times(self.host, turned(v).as_ref()).as_ref());
        let st = turned(metric.apply_f64(self.host, &t).as_ref());
        let image = turned(rows.transposed_times(self.host, error, st).as_ref());
        let small = product(v.transpose(), image.as_ref());
        let captured: f64 = (0..k.min(v.ncols())).map(|i| small[(i, i)]).sum();
        let (rotation, values) = eigen(&small)?;
        let count = k.min(values.len());
        let residual = &image - product(v, small.as_ref());
        let residual = product(residual.as_ref(), rotation.as_ref().subcols(0, count));
        let squares: Vec<f64> = residual.col_iter().map(|c| c.squared_norm_l2()).collect();
        let best: f64 = values[..count].iter().sum();
        let gap = best - captured + lacking(&values, count, &squares);
        Ok(gap * metric.scale() / rows.scale_squared())
    }
}

/// What the top `count` Ritz values lack of the eigenvalues: at most the squared residuals over the gaps to the rest of the
/// spectrum (Parlett, The Symmetric Eigenvalue Problem, 11.7), which is taken to begin at the last Ritz value.
pub(super) fn lacking(values: &[f64], count: usize, squares: &[f64]) -> f64 {
    if count == 0 {
        return 0.0;
    }
    let floor = values.last().copied().unwrap_or_default();
    let smallest = values[count - 1];
    let gap = |value: f64| (value - floor).max(1e-3 * smallest).max(f64::MIN_POSITIVE);
    let pairs = squares.iter().zip(values);
    pairs.map(|(square, &value)| square / gap(value)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use faer::Mat;

    /// G = diag(4, 2, 1): of v = (cos, sin, 0) the value is 4 cos^2 + 2 sin^2, and 2 sin^2 is lacking.
    #[test]
    fn what_is_lacking_is_bounded() {
        let g = Mat::from_fn(3, 3, |i, j| if i == j { [4.0, 2.0, 1.0][i] } else { 0.0 });
        let (sin, cos) = (0.01_f64.sin(), 0.01_f64.cos());
        // The second vector kept is e_3.
        let v = Mat::from_fn(3, 2, |i, j| [[cos, 0.0], [sin, 0.0], [0.0, 1.0]][i][j]);
        let image = &g * &v;
        let small = product(v.transpose(), image.as_ref());
        let residual = &image - product(v.as_ref(), small.as_ref());
        let squares = [residual.col(0).squared_norm_l2()];
        let bound = lacking(&[small[(0, 0)], small[(1, 1)]], 1, &squares);
        let truth = 2.0 * sin * sin;
        assert!(
            bound > 0.6 * truth && bound < 3.0 * truth,
            "{bound} {truth}"
        );
    }
}
