//! Whether a solve would pay: the gap between the layer's correction and the best one for the R of
//! today.
//!
//! For C = E V V^T under R', f(C) = tr G' - tr(V^T G' V), so that the gap is sum_{i<=k}
//! lambda_i(G') - tr(V^T G' V) >= 0 (docs/design/mathematics.md, "Gap"). One application of G' to
//! the vectors kept beside V gives both: the trace, and by Rayleigh-Ritz with its residuals (as in
//! `subspace`) what the sum of the top eigenvalues is, about. G' is taken with the shrinkage that
//! the correction was solved with.
//!
//! Only for QERA-exact and QERA-approx: the other methods' S has another unit than f.
//!
//! A site whose layers could all gain less than a tenth of the tolerance is spared at this solve
//! point: its two latest corrections are scored on newer rows, but nothing is solved. The score is
//! evidence like that of any other solve point, because the rows are new; and the solve that was
//! spared would have gained less still. The site is solved at the next point in any case, because
//! only a solve finds a better shrinkage. The last generation is solved from everything, as always.

use crate::calibrate::site::SiteStatistics;
use crate::error::Fatal;
use crate::host::column_major::ColumnMajor;
use crate::host::dense::{Eigenpairs, eigen, product, squared_lengths};
use crate::host::second_moment::metric::Metric;
use crate::host::second_moment::prepared::PreparedR;
use crate::host::solve_error::SolveError;
use crate::host::subspace::error_operand::ErrorOperand;
use crate::host::subspace::ritz::lacking;
use crate::host::transpose::transposed;
use crate::judge::progress::{LayerProgress, SiteProgress};
use crate::judge::site_metric::site_metric;
use crate::weights::site_layers::SiteLayers;

/// A solve pays if it can gain more than this share of the tolerance.
const WORTH: f64 = 0.1;

/// Whether a solve could gain more than a tenth of the tolerance in one of the site's layers. Where
/// that is not known the answer is yes. Costs one application of G to the kept vectors of each
/// layer.
///
/// # Errors
/// [`Fatal`] naming the layer: a NaN or infinite weight, or products that overflow.
pub(crate) fn pays(
    layers: &SiteLayers<'_>,
    statistics: &SiteStatistics,
    progress: &SiteProgress,
) -> Result<bool, Fatal> {
    let known = |layer: &LayerProgress| {
        layer.insensitive_to_rows || (layer.solve.is_some() && layer.vectors.ncols() > 0)
    };
    // The gap is measured in f only where S is R or its diagonal.
    let method = layers.settings.solve.method;
    // A sketch gives no bound on it that is narrow enough.
    let is_sketched = method.needs_r() && statistics.outputs.is_some();
    if is_sketched || !method.gap_is_in_f() || progress.spared || !progress.layers.iter().all(known)
    {
        return Ok(true);
    }
    let compute = layers.compute;
    let r = statistics.second_moment.packed();
    let r = r.map(|r| PreparedR::exact(compute, r));
    let in_f64 = r.as_ref().is_some_and(|r| r.in_f64);
    for (member, layer) in progress.layers.iter().enumerate() {
        if layer.insensitive_to_rows {
            continue; // Nothing changes it.
        }
        let Some(solved) = layer.solve else {
            return Ok(true);
        };
        let failed = |reason| layers.failed(member, reason);
        let metric = site_metric(method, statistics, r.as_ref(), solved.shrinkage);
        let values = layers.error(member)?;
        let error = ColumnMajor::new(&values, statistics.in_features);
        let gap = metric
            .and_then(|metric| gap(&ErrorOperand::new(compute, error, in_f64), &metric, layer))
            .map_err(failed)?;
        // A gap that is NaN counts as one that pays.
        let small = gap <= WORTH * layers.settings.convergence.tolerance * solved.error;
        if !small {
            return Ok(true);
        }
    }
    Ok(false)
}

/// An estimate of what the layer's latest correction lacks of the optimum under this metric.
fn gap(
    error: &ErrorOperand<'_>,
    metric: &Metric<'_>,
    layer: &LayerProgress,
) -> Result<f64, SolveError> {
    let k = layer.corrections.first().map_or(0, |c| c.rank);
    let v = layer.vectors.as_ref();
    if k == 0 {
        return Ok(f64::INFINITY);
    }
    let t = transposed(error.times(transposed(v).as_ref()).as_ref());
    let st = transposed(metric.apply_f64(&t).as_ref());
    let image = transposed(error.transposed_times(st).as_ref());
    let small = product(v.transpose(), image.as_ref());
    let captured: f64 = (0..k.min(v.ncols())).map(|i| small[(i, i)]).sum();
    let Eigenpairs {
        vectors: rotation,
        values,
    } = eigen(&small)?;
    let count = k.min(values.len());
    let residual = &image - product(v, small.as_ref());
    let residual = product(residual.as_ref(), rotation.as_ref().subcols(0, count));
    let squares: Vec<f64> = squared_lengths(&residual).collect();
    let best: f64 = values[..count].iter().sum();
    let gap = best - captured + lacking(&values, count, &squares);
    Ok(gap * metric.scale() / error.scale_squared())
}
