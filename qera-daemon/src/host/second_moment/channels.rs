//! The mean and the deviations of each channel, in f64 throughout.

use crate::host::column_major::ColumnMajor;
use crate::host::kernels::page_vec::PageVec;

/// The tensors' names in a state.
pub(crate) const MEAN: &str = "mean";
pub(crate) const M2: &str = "m2";

/// Mean and deviations of each channel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ChannelMoments {
    /// Mean of x.
    pub(crate) mean: Vec<f64>,
    /// Sum of squared deviations from it.
    pub(crate) m2: Vec<f64>,
}

impl ChannelMoments {
    /// The moments of no row.
    pub(crate) fn new(in_features: usize) -> Self {
        Self {
            mean: vec![0.0; in_features],
            m2: vec![0.0; in_features],
        }
    }

    /// The moments that were saved; `read` gives a tensor by its name and length.
    ///
    /// # Errors
    /// Any error of `read`.
    pub(crate) fn load<E>(
        in_features: usize,
        mut read: impl FnMut(&str, usize) -> Result<PageVec<f64>, E>,
    ) -> Result<Self, E> {
        Ok(Self {
            mean: read(MEAN, in_features)?.to_vec(),
            m2: read(M2, in_features)?.to_vec(),
        })
    }

    /// Whether a tensor of a state is one of the moments.
    pub(crate) fn is_tensor(name: &str) -> bool {
        [MEAN, M2].contains(&name)
    }

    /// E[x^2] of each channel: mean^2 + M2 / N over rows of this weight.
    #[must_use]
    pub(crate) fn mean_squares(&self, weight: f64) -> Vec<f64> {
        let weight = if weight > 0.0 { weight } else { 1.0 };
        let channels = self.mean.iter().zip(&self.m2);
        let squares = channels.map(|(mean, m2)| mean * mean + m2 / weight);
        squares.collect()
    }

    /// The sum over channels of the deviations times |P_i|^2: tr(diag P P^T) of one row from zero.
    pub(crate) fn power(&self, p: ColumnMajor<'_>) -> f64 {
        let columns = p.values.chunks_exact(self.m2.len().max(1));
        let of_column = |column: &[f32]| {
            let channels = column.iter().zip(&self.m2);
            let squares = channels.map(|(p, d)| d * f64::from(*p).powi(2));
            squares.sum::<f64>()
        };
        columns.map(of_column).sum()
    }
}

/// The largest element, by which a diagonal is scaled for f32; 1 where all are zero.
pub(crate) fn diagonal_scale(diagonal: &[f64]) -> f64 {
    let largest = diagonal.iter().fold(0.0_f64, |max, d| max.max(*d));
    if largest > 0.0 { largest } else { 1.0 }
}
