//! What stands for R = E[x^T x] of a layer's input: `packed` is R in f64, `channels` its diagonal
//! and the means, `summed` sums that others formed folded into both, `massive` the channels that
//! f32 products are not enough for, `prepared` R made ready for a solve, `without` R less some of
//! its rows, `metric` the S that a method solves with.

pub(crate) mod channels;
pub(crate) mod massive;
pub(crate) mod metric;
pub(crate) mod packed;
pub(crate) mod prepared;
pub(crate) mod summed;
pub(crate) mod without;

use std::sync::Arc;

use faer::{Mat, MatRef};
use qera_core::packed::packed_len;
use qera_core::statistics::{Autocorrelation, BlockShare, StatisticError};
use serde::{Deserialize, Serialize};

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::rank_update::{Scratch, fold_products};
use crate::host::kernels::row_weights::Extent;
use crate::host::kernels::stored::StoredRows;
use crate::host::second_moment::channels::{ChannelMoments, M2, MEAN};
use crate::host::second_moment::massive::{MassiveRows, massive_channels};
use crate::host::second_moment::packed::{PackedR, Trace};

/// How much of R is gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SecondMomentKind {
    /// The whole, packed in f64.
    Packed,
    /// The diagonal.
    Diagonal,
    /// The diagonal, by somebody else's word: no row of it was seen here. What is measured by it is
    /// the diagonal error, never f. No state holds it.
    #[serde(skip)]
    Given,
}

impl SecondMomentKind {
    /// For a method that needs the whole of R, or one that does not.
    #[must_use]
    pub(crate) const fn for_method(needs_r: bool) -> Self {
        if needs_r {
            Self::Packed
        } else {
            Self::Diagonal
        }
    }

    /// Whether R itself is there: R X and tr(R P P^T) can be had.
    #[must_use]
    pub(crate) const fn is_whole(self) -> bool {
        matches!(self, Self::Packed)
    }

    /// Whether errors are traces: under R, or under the diagonal where no row will ever say more.
    #[must_use]
    pub(crate) const fn is_traced(self) -> bool {
        matches!(self, Self::Packed | Self::Given)
    }

    /// Numbers of the packed triangle.
    #[must_use]
    pub(crate) const fn packed_numbers(self, in_features: usize) -> usize {
        match self {
            Self::Packed => packed_len(in_features),
            Self::Diagonal | Self::Given => 0,
        }
    }

    /// Bytes of a site's second moment.
    #[must_use]
    pub(crate) const fn bytes(self, in_features: usize) -> u64 {
        8 * (self.packed_numbers(in_features) + 2 * in_features) as u64
    }
}

/// The second moment of a site's input, as far as it is gathered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SecondMoment {
    /// R, and the moments of single channels.
    Packed {
        /// Upper triangle by rows, the mean over the rows folded. Copies share it until one of them
        /// folds.
        r: Arc<PageVec<f64>>,
        /// Of single channels, in f64 throughout.
        channels: ChannelMoments,
    },
    /// The moments of single channels alone.
    Diagonal(ChannelMoments),
    /// E[x^2] as it was given, in the form of one row whose deviations from zero it is: the means
    /// are not known, nor is any row.
    Given(ChannelMoments),
}

/// A tensor that a state keeps of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SavedMoment<'a> {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its numbers.
    pub(crate) values: &'a [f64],
}

const R: &str = "autocorrelation";

impl SecondMoment {
    /// Of no row.
    #[must_use]
    pub(crate) fn new(kind: SecondMomentKind, in_features: usize) -> Self {
        let channels = ChannelMoments::new(in_features);
        match kind {
            SecondMomentKind::Packed => Self::Packed {
                r: Arc::new(PageVec::zeroed(packed_len(in_features))),
                channels,
            },
            SecondMomentKind::Diagonal => Self::Diagonal(channels),
            SecondMomentKind::Given => Self::Given(channels),
        }
    }

    /// E[x^2] by somebody else's word.
    #[must_use]
    pub(crate) fn given(mean_squares: Vec<f64>) -> Self {
        Self::Given(ChannelMoments {
            mean: vec![0.0; mean_squares.len()],
            m2: mean_squares,
        })
    }

    /// How much of R it is.
    #[must_use]
    pub(crate) const fn kind(&self) -> SecondMomentKind {
        match self {
            Self::Packed { .. } => SecondMomentKind::Packed,
            Self::Diagonal(_) => SecondMomentKind::Diagonal,
            Self::Given(_) => SecondMomentKind::Given,
        }
    }

    /// Moments of single channels.
    #[must_use]
    pub(crate) const fn channels(&self) -> &ChannelMoments {
        match self {
            Self::Packed { channels, .. } | Self::Diagonal(channels) | Self::Given(channels) => {
                channels
            }
        }
    }

    /// Moments of single channels, which are folded row by row by whoever widens the rows.
    pub(crate) const fn channels_mut(&mut self) -> &mut ChannelMoments {
        match self {
            Self::Packed { channels, .. } | Self::Diagonal(channels) | Self::Given(channels) => {
                channels
            }
        }
    }

    /// Folds products of rows into R, where it is gathered: f32 products, f64 folds in Welford's
    /// mean form; f64 products for massive channels. `seen` was folded before; the channels'
    /// moments know of these rows already.
    ///
    /// # Errors
    /// [`StatisticError`] for rows of another width.
    pub(crate) fn fold(
        &mut self,
        compute: Compute<'_>,
        rows: StoredRows<'_>,
        seen: &Extent,
        scratch: &mut Scratch,
    ) -> Result<(), StatisticError> {
        let Self::Packed { r, channels } = self else {
            return Ok(());
        };
        // Nobody else has it now, or the copy is meant.
        let r = &mut **Arc::make_mut(r);
        Autocorrelation::go_on(r, rows.in_features, seen.weight)?;
        let shard = shares(rows, seen.weight)(rows.rows());
        let massive = massive_channels(channels, &seen.with(&rows.extent()));
        let massive = MassiveRows::before(massive, r, rows.in_features);
        fold_products(compute, rows, r, scratch, shares(rows, seen.weight));
        massive.fold(rows, shard, r);
        Ok(())
    }

    /// R, where the whole of it is gathered.
    #[must_use]
    pub(crate) fn packed(&self) -> Option<PackedR<'_>> {
        match self {
            Self::Packed { r, channels } => Some(PackedR::new(r, channels.mean.len())),
            Self::Diagonal(_) | Self::Given(_) => None,
        }
    }

    /// R X in f64, X being m x b, or diag X of a given diagonal; `None` where rows are asked.
    #[must_use]
    pub(crate) fn apply(&self, compute: Compute<'_>, x: MatRef<'_, f64>) -> Option<Mat<f64>> {
        match self {
            Self::Given(of) => {
                let scaled = |i, j| of.m2[i] * x[(i, j)];
                Some(Mat::from_fn(x.nrows(), x.ncols(), scaled))
            }
            _ => Some(self.packed()?.times(compute, x)),
        }
    }

    /// tr(R P P^T) for P, m x n, or tr(diag P P^T) of a given diagonal; `None` where rows are
    /// asked.
    #[must_use]
    pub(crate) fn trace_with(&self, compute: Compute<'_>, p: ColumnMajor<'_>) -> Option<Trace> {
        match self {
            Self::Given(of) => Some(Trace {
                massive: 0.0,
                ordinary: of.power(p),
            }),
            _ => Some(self.packed()?.trace_with(compute, p)),
        }
    }

    /// E[x^2] per channel, the mean over rows of so much weight.
    #[must_use]
    pub(crate) fn mean_squares(&self, weight: f64) -> Vec<f64> {
        match self {
            Self::Given(of) => of.m2.clone(),
            _ => self.channels().mean_squares(weight),
        }
    }

    /// The diagonal of R: as it was gathered, with the rounding of its f32 products, or from the
    /// channels' moments over rows of so much weight.
    #[must_use]
    pub(crate) fn diagonal(&self, weight: f64) -> Vec<f64> {
        match self.packed() {
            Some(r) => r.diagonal(),
            None => self.mean_squares(weight),
        }
    }

    /// What a state keeps of it.
    #[must_use]
    pub(crate) fn saved(&self) -> Vec<SavedMoment<'_>> {
        let channels = self.channels();
        let saved = |name, values| SavedMoment { name, values };
        let mut tensors = Vec::new();
        if let Self::Packed { r, .. } = self {
            tensors.push(saved(R, r));
        }
        tensors.extend([saved(M2, &channels.m2), saved(MEAN, &channels.mean)]);
        tensors
    }

    /// The second moment that was saved so; `read` gives a tensor of a name and a length.
    ///
    /// # Errors
    /// What `read` returns.
    pub(crate) fn load<E>(
        kind: SecondMomentKind,
        in_features: usize,
        mut read: impl FnMut(&str, usize) -> Result<PageVec<f64>, E>,
    ) -> Result<Self, E> {
        let channels = ChannelMoments::load(in_features, &mut read)?;
        Ok(match kind {
            SecondMomentKind::Packed => Self::Packed {
                r: Arc::new(read(R, packed_len(in_features))?),
                channels,
            },
            SecondMomentKind::Diagonal => Self::Diagonal(channels),
            SecondMomentKind::Given => Self::Given(channels),
        })
    }
}

/// How X^T W X of pieces of these rows, one after the other, changes a mean over `before`: asked
/// with the number of rows of each. Sums come in units of the weights.
fn shares(rows: StoredRows<'_>, before: f64) -> impl FnMut(usize) -> BlockShare {
    let (unit, mut first, mut seen) = (rows.unit(), 0, before);
    move |count| {
        let weight = rows.slice(first..first + count).extent().weight;
        let share = BlockShare::new(seen / unit, weight / unit);
        first += count;
        seen += weight;
        share
    }
}
