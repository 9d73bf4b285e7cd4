//! Measures the three figures of a layer.

use core::ops::Range;

use faer::{Mat, MatRef};

use crate::error::Fatal;
use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::cores::Cores;
use crate::host::dense::product;
use crate::host::kernels::page_vec::PageVec;
use crate::host::rounding::narrow;
use crate::publish::ratio::ratio;
use crate::publish::written::WrittenPair;
use crate::replay::base::ReplayedBase;
use crate::replay::factors::{FactorsError, LayerFactors};
use crate::replay::rows::SiteRows;
use crate::source::refusal::Refusal;
use crate::weights::Weights;
use crate::weights::layers::Layer;

/// Columns of A B that are formed at a time.
const COLUMNS: usize = 64;
/// By how much f32 products may put the error with the adapter above the error without it,
/// relatively.
const ROUNDING: f64 = 1e-6;
/// The share of the output's power below which no correction in f16 and no product in f32 gets.
const NOTHING: f64 = 1e-12;

/// What is needed to measure a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measuring<'a> {
    /// The kernels that compute.
    pub(crate) compute: Compute<'a>,
    /// W of all layers.
    pub(crate) weights: &'a Weights,
    /// The layer's index.
    pub(crate) layer: usize,
    /// The base, with W~.
    pub(crate) base: &'a ReplayedBase,
    /// The rows of the layer's input.
    pub(crate) rows: &'a SiteRows<'a>,
}

/// Means over the rows of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MeasuredErrors {
    /// The number of rows.
    pub(crate) rows: usize,
    /// The rank of the factors.
    pub(crate) rank: usize,
    /// |x W|^2.
    pub(crate) power: f64,
    /// |x (W~ - W)|^2.
    pub(crate) without: f64,
    /// |x (W~ + C - W)|^2.
    pub(crate) with: f64,
}

/// Why a layer could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotMeasured {
    /// W or W~ cannot be read.
    #[error("{0}")]
    Weight(#[from] Fatal),
    /// A and B cannot be read.
    #[error("{0}")]
    Factors(FactorsError),
    /// The adapter has more than is read here.
    #[error("{0}")]
    Unread(FactorsError),
    /// The factors do not fit the layer.
    #[error(
        "its factors make [{out_features}, {in_features}], the checkpoint's weight is {expected:?}"
    )]
    Shapes {
        /// The number of rows of B^T.
        out_features: usize,
        /// The number of columns of A^T.
        in_features: usize,
        /// out_features and in_features of the layer.
        expected: [usize; 2],
    },
    /// A shard cannot be read that was whole before.
    #[error("{0}")]
    Shard(#[from] Refusal),
    /// A sum overflows.
    #[error("products with its rows overflow")]
    Overflow,
}

impl From<FactorsError> for NotMeasured {
    fn from(error: FactorsError) -> Self {
        match error.is_unread_form() {
            true => Self::Unread(error),
            false => Self::Factors(error),
        }
    }
}

impl MeasuredErrors {
    /// The error with the adapter, relative to the output's power.
    #[must_use]
    pub(crate) fn relative_with(&self) -> f64 {
        ratio(self.with, self.power)
    }

    /// The error without it, relative to the output's power.
    #[must_use]
    pub(crate) fn relative_without(&self) -> f64 {
        ratio(self.without, self.power)
    }

    /// Whether the rows make neither an output nor an error.
    #[must_use]
    pub(crate) fn says_nothing(&self) -> bool {
        [self.power, self.without, self.with]
            .iter()
            .all(|figure| *figure <= 0.0)
    }

    /// Whether the adapter makes the error larger.
    #[must_use]
    pub(crate) fn does_harm(&self) -> bool {
        self.with > self.without * (1.0 + ROUNDING) + NOTHING * self.power
    }
}

impl Measuring<'_> {
    /// Measures the layer with these factors.
    ///
    /// # Errors
    /// [`NotMeasured`].
    pub(crate) fn measure(
        &self,
        factors: impl FnOnce() -> Result<LayerFactors, FactorsError>,
    ) -> Result<MeasuredErrors, NotMeasured> {
        let layer = &self.weights.layers()[self.layer];
        let factors = factors()?;
        check_shapes(layer, &factors)?;
        // W, W - W~ and W - W~ - C at once, so that rows are read once for all three.
        let original = self.weights.original(self.layer)?;
        let mut error = copied(&original);
        self.base.subtract(layer, &mut error, self.compute.cores)?;
        let mut left = copied(&error);
        factors.subtract(layer.in_features, &mut left, self.compute.cores);
        let matrices = [&original, &error, &left];
        let matrices = matrices.map(|values| ColumnMajor::new(values, layer.in_features));
        let [power, without, with] = self.rows.mean_powers(self.compute, matrices)?;
        let measured = MeasuredErrors {
            rows: self.rows.count(),
            rank: factors.pair.rank,
            power,
            without,
            with,
        };
        let figures = [measured.power, measured.without, measured.with];
        match figures.iter().all(|figure| figure.is_finite()) {
            true => Ok(measured),
            false => Err(NotMeasured::Overflow),
        }
    }
}

fn copied(matrix: &[f32]) -> PageVec<f32> {
    let mut copy = PageVec::zeroed(matrix.len());
    copy.copy_from_slice(matrix);
    copy
}

fn check_shapes(layer: &Layer, factors: &LayerFactors) -> Result<(), NotMeasured> {
    let pair = &factors.pair;
    let expected = [layer.out_features, layer.in_features];
    match [pair.out_features, pair.in_features] == expected {
        true => Ok(()),
        false => Err(NotMeasured::Shapes {
            out_features: pair.out_features,
            in_features: pair.in_features,
            expected,
        }),
    }
}

impl LayerFactors {
    /// Subtracts C from a matrix by columns of m numbers; C is formed in f64.
    fn subtract(&self, m: usize, matrix: &mut [f32], cores: &Cores) {
        let pair = &self.pair;
        let a = Mat::from_fn(m, pair.rank, |i, k| {
            self.scale * f64::from(pair.lora_a[k * m + i])
        });
        let pieces = matrix.chunks_mut(COLUMNS * m).enumerate();
        cores.spread(pieces.collect(), |(piece, values)| {
            let first = piece * COLUMNS;
            let columns = first..first + values.len() / m;
            let c = product(a.as_ref(), self.b_columns(columns).as_ref());
            for (column, of_column) in c.col_iter().zip(values.chunks_exact_mut(m)) {
                let numbers = of_column.iter_mut().zip(column.iter());
                numbers.for_each(|(e, c)| *e = narrow(f64::from(*e) - c));
            }
        });
    }

    /// These columns of B: rank x their number.
    fn b_columns(&self, columns: Range<usize>) -> Mat<f64> {
        let WrittenPair { rank, lora_b, .. } = &self.pair;
        let numbers = &lora_b[columns.start * rank..columns.end * rank];
        let b = MatRef::from_column_major_slice(numbers, *rank, columns.len());
        Mat::from_fn(b.nrows(), b.ncols(), |i, j| f64::from(b[(i, j)]))
    }
}
