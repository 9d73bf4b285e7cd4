//! S: what a method solves with in the place of R.

use crate::calibrate::site::SiteStatistics;
use crate::host::second_moment::metric::Metric;
use crate::host::second_moment::prepared::PreparedR;
use crate::host::solve_error::SolveError;

use qera_core::reconstruct::{Method, StatisticKind};
use qera_core::statistics::BatchMaxMeanAbs;

/// Means over rows of which the diagonal of S is made. The rows are those of a site, or those that
/// are left without a fold.
pub(crate) trait ChannelMeans {
    /// E[x^2].
    fn squares(&self) -> Vec<f64>;
    /// The diagonal of R itself, which has the rounding of f32 products.
    fn of_r(&self) -> Vec<f64>;
    /// E|x|.
    fn abs(&self) -> Vec<f64>;
    /// The maximum over batches of each batch's E|x|, clamped and normalised.
    ///
    /// # Errors
    /// [`SolveError::Statistic`], and [`SolveError::LeftOut`] where it cannot be had.
    fn batch_max(&self) -> Result<Vec<f64>, SolveError>;
}

/// The diagonal of a method's S, unscaled. Where S is R it is the diagonal of R.
///
/// # Errors
/// The diagonal cannot be made, as for [`ChannelMeans::batch_max`].
pub(crate) fn metric_diagonal(
    method: Method,
    in_features: usize,
    means: &impl ChannelMeans,
) -> Result<Vec<f64>, SolveError> {
    let squared = |scale: Vec<f64>| scale.into_iter().map(|s| s * s).collect();
    Ok(match method.statistic_kind() {
        StatisticKind::Autocorrelation => means.of_r(),
        StatisticKind::SecondMoment => means.squares(),
        StatisticKind::MeanAbs => squared(means.abs()),
        StatisticKind::BatchMaxMeanAbs => squared(means.batch_max()?),
        StatisticKind::Identity => vec![1.0; in_features],
    })
}

/// S of a site, by its method.
///
/// # Errors
/// [`SolveError::Statistic`] where a statistic has another width than the site.
pub(crate) fn site_metric<'m>(
    method: Method,
    statistics: &SiteStatistics,
    r: Option<&'m PreparedR<'m>>,
    shrinkage: f64,
) -> Result<Metric<'m>, SolveError> {
    match r.filter(|_| method.needs_r()) {
        Some(r) => Ok(Metric::Shrunk { r, shrinkage }),
        // Without R a method that needs it is refused before a row is read.
        None => {
            let diagonal = metric_diagonal(method, statistics.in_features, statistics)?;
            Ok(Metric::of_diagonal(diagonal))
        }
    }
}

impl ChannelMeans for SiteStatistics {
    fn squares(&self) -> Vec<f64> {
        self.mean_squares()
    }

    fn of_r(&self) -> Vec<f64> {
        self.diagonal()
    }

    fn abs(&self) -> Vec<f64> {
        self.mean_abs.clone()
    }

    fn batch_max(&self) -> Result<Vec<f64>, SolveError> {
        let mut values = self.batch_max.clone();
        let mut scale = vec![0.0; values.len()];
        BatchMaxMeanAbs::resume(&mut values, self.extent().weight)
            .and_then(|statistic| statistic.finish_scale(&mut scale))
            .map_err(SolveError::Statistic)?;
        Ok(scale)
    }
}
