//! Moments of single channels, in f64 throughout.

/// Mean and deviations of each channel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ChannelMoments {
    /// Mean of x.
    pub(crate) mean: Vec<f64>,
    /// Sum of squared deviations from it.
    pub(crate) m2: Vec<f64>,
}

impl ChannelMoments {
    /// Of no row.
    pub(crate) fn new(in_features: usize) -> Self {
        Self {
            mean: vec![0.0; in_features],
            m2: vec![0.0; in_features],
        }
    }

    /// E[x^2]: mean^2 + M2 / N over `rows`.
    #[must_use]
    pub(crate) fn mean_squares(&self, rows: u64) -> Vec<f64> {
        let rows = (rows as f64).max(1.0);
        let channels = self.mean.iter().zip(&self.m2);
        channels.map(|(mean, m2)| mean * mean + m2 / rows).collect()
    }
}

/// The largest element, by which a diagonal is scaled for f32; 1 when all are zero.
pub(crate) fn diagonal_scale(diagonal: &[f64]) -> f64 {
    let largest = diagonal.iter().fold(0.0_f64, |max, d| max.max(*d));
    if largest > 0.0 { largest } else { 1.0 }
}
