//! What stands for R = E[x^T x] of a layer's input. `packed` is R in f64 and `channels` its
//! diagonal and the means; `summed` folds sums that others formed into both. `massive` treats the
//! channels for which f32 products are not enough. `prepared` is R made ready for a solve,
//! `without` is R less some of its rows, and `metric` is the S that a method solves with.

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
    /// The whole of R, packed in f64.
    Packed,
    /// The diagonal of R.
    Diagonal,
    /// A diagonal that the user gave (an imatrix), without any row. What is measured with it is the
    /// diagonal error, never f. No state holds it.
    #[serde(skip)]
    Given,
}

impl SecondMomentKind {
    /// The kind for a method that needs the whole of R, or for one that does not.
    #[must_use]
    pub(crate) const fn for_method(needs_r: bool) -> Self {
        if needs_r {
            Self::Packed
        } else {
            Self::Diagonal
        }
    }

    /// Whether R itself is there, so that R X and tr(R P P^T) can be computed.
    #[must_use]
    pub(crate) const fn is_whole(self) -> bool {
        matches!(self, Self::Packed)
    }

    /// Whether errors are computed as traces: under R, or under a given diagonal, where there are
    /// no rows.
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
        /// The moments of single channels, in f64 throughout.
        channels: ChannelMoments,
    },
    /// The moments of single channels alone.
    Diagonal(ChannelMoments),
    /// E[x^2] as the user gave it, kept as the squared deviations of one row from zero. Neither
    /// means nor rows are known.
    Given(ChannelMoments),
}

/// A tensor of the second moment that a state keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SavedMoment<'a> {
    /// The name of the tensor.
    pub(crate) name: &'static str,
    /// The numbers of the tensor.
    pub(crate) values: &'a [f64],
}

const R: &str = "autocorrelation";

impl SecondMoment {
    /// The second moment of no row.
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

    /// The second moment from an E[x^2] that the user gave.
    #[must_use]
    pub(crate) fn given(mean_squares: Vec<f64>) -> Self {
        Self::Given(ChannelMoments {
            mean: vec![0.0; mean_squares.len()],
            m2: mean_squares,
        })
    }

    /// The kind: how much of R this is.
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

    /// The moments of single channels. Whoever widens the rows folds them in.
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
        // Nobody else has R now, or the copy is what is wanted.
        let r = &mut **Arc::make_mut(r);
        Autocorrelation::go_on(r, rows.in_features, seen.weight)?;
        let massive = massive_channels(channels, &seen.with(&rows.extent()));
        fold_rows(compute, rows, seen, &massive, r, scratch);
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

    /// R X in f64, X being m x b; with a given diagonal, diag X. `None` where rows are needed for
    /// it.
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

    /// tr(R P P^T) for P, m x n; with a given diagonal, tr(diag P P^T). `None` where rows are
    /// needed for it.
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

    /// What `trace_with` has, to 1e-6: fewer operations for a figure that stands by itself.
    #[must_use]
    pub(crate) fn power_with(&self, compute: Compute<'_>, p: ColumnMajor<'_>) -> Option<f64> {
        match self {
            Self::Given(of) => Some(of.power(p)),
            _ => Some(self.packed()?.power_with(compute, p)),
        }
    }

    /// E[x^2] of each channel, the mean over rows of this weight.
    #[must_use]
    pub(crate) fn mean_squares(&self, weight: f64) -> Vec<f64> {
        match self {
            Self::Given(of) => of.m2.clone(),
            _ => self.channels().mean_squares(weight),
        }
    }

    /// The diagonal of R: as it was gathered, with the rounding of f32 products; or from the
    /// channels' moments over rows of this weight.
    #[must_use]
    pub(crate) fn diagonal(&self, weight: f64) -> Vec<f64> {
        match self.packed() {
            Some(r) => r.diagonal(),
            None => self.mean_squares(weight),
        }
    }

    /// The tensors that a state keeps.
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

    /// The second moment that was saved; `read` gives a tensor by its name and length.
    ///
    /// # Errors
    /// Any error of `read`.
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

/// Folds rows that come after `seen` into R, these channels being massive.
pub(crate) fn fold_rows(
    compute: Compute<'_>,
    rows: StoredRows<'_>,
    seen: &Extent,
    massive: &[usize],
    r: &mut [f64],
    scratch: &mut Scratch,
) {
    let shard = shares(rows, seen.weight)(rows.rows());
    let massive = MassiveRows::before(massive.to_vec(), r, rows.in_features);
    fold_products(compute, rows, r, scratch, shares(rows, seen.weight));
    massive.fold(rows, shard, r);
}

/// How X^T W X of pieces of these rows, one after the other, changes a mean over `before`: asked
/// with the number of rows of each. Sums come in units of the weights.
pub(crate) fn shares(rows: StoredRows<'_>, before: f64) -> impl FnMut(usize) -> BlockShare {
    let (unit, mut first, mut seen) = (rows.unit(), 0, before);
    move |count| {
        let weight = rows.slice(first..first + count).extent().weight;
        let share = BlockShare::new(seen / unit, weight / unit);
        first += count;
        seen += weight;
        share
    }
}
