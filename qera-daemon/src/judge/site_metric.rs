//! What a method solves with in the place of R.

use crate::calibrate::site::SiteStatistics;
use crate::host::second_moment::metric::Metric;
use crate::host::second_moment::prepared::PreparedR;
use crate::host::solve_error::SolveError;

use qera_core::reconstruct::{Method, StatisticKind};
use qera_core::statistics::BatchMaxMeanAbs;

/// S of a site.
///
/// # Errors
/// [`SolveError::Statistic`] where a statistic has another width than the site.
pub(crate) fn site_metric<'m>(
    method: Method,
    statistics: &SiteStatistics,
    r: Option<&'m PreparedR<'m>>,
    shrinkage: f64,
) -> Result<Metric<'m>, SolveError> {
    let squares = |scale: &[f64]| Metric::of_diagonal(scale.iter().map(|s| s * s).collect());
    Ok(match (method.statistic_kind(), r) {
        (StatisticKind::Autocorrelation, Some(r)) => Metric::Shrunk { r, shrinkage },
        // Without R a method that needs it is refused before a row is read.
        (StatisticKind::Autocorrelation | StatisticKind::SecondMoment, _) => {
            Metric::of_diagonal(statistics.mean_squares())
        }
        (StatisticKind::MeanAbs, _) => squares(&statistics.mean_abs),
        (StatisticKind::BatchMaxMeanAbs, _) => squares(&lqer_scale(statistics)?),
        (StatisticKind::Identity, _) => Metric::of_diagonal(vec![1.0; statistics.in_features]),
    })
}

/// The reference's scale: the maximum of batch means, clamped and normalised.
fn lqer_scale(statistics: &SiteStatistics) -> Result<Vec<f64>, SolveError> {
    let mut values = statistics.batch_max.clone();
    let mut scale = vec![0.0; values.len()];
    BatchMaxMeanAbs::resume(&mut values, statistics.rows as f64)
        .and_then(|statistic| statistic.finish_scale(&mut scale))
        .map_err(SolveError::Statistic)?;
    Ok(scale)
}
