//! What a method solves with in the place of R.

use crate::calibrate::site::SiteStatistics;
use crate::error::Fatal;
use crate::host::second_moment::metric::Metric;
use crate::host::second_moment::packed::PackedR;
use crate::judge::held_out::Choice;

use qera_core::reconstruct::{Method, StatisticKind};
use qera_core::statistics::BatchMaxMeanAbs;

/// S of a site.
///
/// # Errors
/// [`Fatal`] where a statistic has another width than the site.
pub(crate) fn site_metric<'m>(
    method: Method,
    statistics: &SiteStatistics,
    packed: Option<PackedR<'m>>,
    scale: f64,
    full: &'m [f32],
    choice: Option<Choice>,
) -> Result<Metric<'m>, Fatal> {
    let squares = |scale: &[f64]| Metric::of_diagonal(scale.iter().map(|s| s * s).collect());
    Ok(match (method.statistic_kind(), packed) {
        (StatisticKind::Autocorrelation, Some(packed)) => Metric::Shrunk {
            full,
            diagonal: statistics.diagonal().iter().map(|d| d / scale).collect(),
            shrinkage: choice.map_or(0.0, |c| c.shrinkage),
            exact: (packed, scale),
        },
        // Without R a method that needs it is refused before a row is read.
        (StatisticKind::Autocorrelation | StatisticKind::SecondMoment, _) => {
            Metric::of_diagonal(statistics.second_moment())
        }
        (StatisticKind::MeanAbs, _) => squares(&statistics.mean_abs),
        (StatisticKind::BatchMaxMeanAbs, _) => squares(&lqer_scale(statistics)?),
        (StatisticKind::Identity, _) => Metric::of_diagonal(vec![1.0; statistics.in_features]),
    })
}

/// The reference's scale: the maximum of batch means, clamped and normalised.
fn lqer_scale(statistics: &SiteStatistics) -> Result<Vec<f64>, Fatal> {
    let mut values = statistics.batch_max.clone();
    let mut scale = vec![0.0; values.len()];
    BatchMaxMeanAbs::resume(&mut values, statistics.rows as f64)
        .and_then(|statistic| statistic.finish_scale(&mut scale))
        .map_err(|e| Fatal::Solve {
            layer: "LQER statistic".into(),
            reason: e.to_string(),
        })?;
    Ok(scale)
}
