//! Rows of one layer input, which are checked once.
//!
//! Every statistic takes [`Rows`], so the checks that keep a statistic finite are made here and the
//! inner loops stay bare: the values form whole rows, each of them is finite and small enough for
//! its f32 products, each weight is finite and not negative. A value that would poison an
//! accumulator for ever cannot reach one.
//!
//! Cost: one pass over the values. Padding tokens are left out by a weight of 0, or earlier by the
//! mask of [`decode_rows`](crate::dtype::decode_rows), which drops them.

use crate::dtype::{MAGNITUDE_MAX, first_above, is_within};
use core::fmt;

/// Rows of activations `[rows, in_features]`, row-major, with an optional weight for each row.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    values: &'a [f32],
    in_features: usize,
    weights: Option<&'a [f32]>,
}

/// One row with its weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row<'a> {
    /// Its in_features values.
    pub values: &'a [f32],
    /// Its weight, not negative.
    pub weight: f32,
}

impl<'a> Rows<'a> {
    /// Checks and borrows rows, each of weight 1.
    ///
    /// # Shapes
    /// `values` holds rows x `in_features` numbers, row-major; no rows at all is fine.
    ///
    /// # Errors
    /// [`ShapeError::InFeatures`] when `in_features` is 0, [`ShapeError::Length`] when the values
    /// are not whole rows, [`ShapeError::Value`] for the first value that is not finite or above
    /// [`MAGNITUDE_MAX`]. Nothing has been accumulated then: refuse the batch.
    ///
    /// ```
    /// use qera_core::rows::{Rows, ShapeError};
    /// let rows = Rows::new(&[1.0, 2.0, 3.0, 4.0], 2)?;
    /// assert_eq!((rows.len(), rows.in_features()), (2, 2));
    /// assert!(Rows::new(&[], 2)?.is_empty());
    /// assert_eq!(Rows::new(&[1.0, 2.0, 3.0], 2).unwrap_err(), ShapeError::Length { values: 3, in_features: 2 });
    /// # Ok::<(), ShapeError>(())
    /// ```
    pub fn new(values: &'a [f32], in_features: usize) -> Result<Self, ShapeError> {
        if in_features == 0 {
            return Err(ShapeError::InFeatures);
        }
        if !values.len().is_multiple_of(in_features) {
            return Err(ShapeError::Length {
                values: values.len(),
                in_features,
            });
        }
        if !is_within(values, MAGNITUDE_MAX)
            && let Some(index) = first_above(values, MAGNITUDE_MAX)
        {
            return Err(ShapeError::Value {
                row: index / in_features,
                column: index % in_features,
                value: values[index],
            });
        }
        Ok(Self {
            values,
            in_features,
            weights: None,
        })
    }

    /// Gives each row its weight: 0 is the same as leaving the row out, 3 the same as repeating it
    /// three times.
    ///
    /// # Errors
    /// [`ShapeError::Weights`] when their number is not the number of rows, [`ShapeError::Weight`]
    /// for the first that is negative or not finite.
    ///
    /// ```
    /// # use qera_core::rows::{Rows, ShapeError};
    /// let rows = Rows::new(&[1.0, 2.0, 3.0], 1)?.weighted(&[1.0, 0.0, 0.5])?;
    /// assert_eq!(rows.weight(), 1.5);
    /// # Ok::<(), ShapeError>(())
    /// ```
    pub fn weighted(self, weights: &'a [f32]) -> Result<Self, ShapeError> {
        if weights.len() != self.len() {
            return Err(ShapeError::Weights {
                weights: weights.len(),
                rows: self.len(),
            });
        }
        match weights.iter().position(|w| !w.is_finite() || *w < 0.0) {
            Some(row) => Err(ShapeError::Weight {
                row,
                value: weights[row],
            }),
            None => Ok(Self {
                weights: Some(weights),
                ..self
            }),
        }
    }

    /// Says how many rows there are, whatever their weights.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.values.len() / self.in_features
    }

    /// Says whether there is no row.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Says how many values a row has.
    #[must_use]
    pub const fn in_features(&self) -> usize {
        self.in_features
    }

    /// Sums the weights of the rows, in row order; without weights this is [`len`](Self::len).
    #[must_use]
    pub fn weight(&self) -> f64 {
        match self.weights {
            Some(weights) => weights.iter().map(|&w| f64::from(w)).sum(),
            None => self.len() as f64,
        }
    }

    /// The values of all rows, row-major.
    pub(crate) const fn values(&self) -> &'a [f32] {
        self.values
    }

    /// The rows from `first` on, at most `count` of them.
    pub(crate) fn range(&self, first: usize, count: usize) -> Self {
        let end = first.saturating_add(count).min(self.len());
        let first = first.min(end);
        Self {
            values: &self.values[first * self.in_features..end * self.in_features],
            in_features: self.in_features,
            weights: self.weights.map(|weights| &weights[first..end]),
        }
    }

    /// Other rows with the weights of these, one for each.
    pub(crate) fn weights_for<'b>(
        &self,
        values: &'b [f32],
        in_features: usize,
    ) -> Result<Rows<'b>, ShapeError>
    where
        'a: 'b,
    {
        let rows = Rows::<'b>::new(values, in_features)?;
        match self.weights {
            Some(weights) => rows.weighted(weights),
            None => Ok(rows),
        }
    }

    /// Goes through the rows with their weights, in order.
    ///
    /// ```
    /// # use qera_core::rows::{Row, Rows, ShapeError};
    /// let rows = Rows::new(&[1.0, 2.0, 3.0, 4.0], 2)?;
    /// assert_eq!(rows.iter().last(), Some(Row { values: &[3.0, 4.0], weight: 1.0 }));
    /// # Ok::<(), ShapeError>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let weights = self.weights;
        let weight = move |row: usize| weights.and_then(|w| w.get(row)).copied().unwrap_or(1.0);
        self.values
            .chunks_exact(self.in_features)
            .enumerate()
            .map(move |(row, values)| Row {
                values,
                weight: weight(row),
            })
    }
}

/// Why values, or weights, are not rows that can be accumulated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ShapeError {
    /// The rows have no values.
    InFeatures,
    /// The values do not form whole rows.
    Length {
        /// How many values were given.
        values: usize,
        /// How many a row has.
        in_features: usize,
    },
    /// The weights are not one for each row.
    Weights {
        /// How many weights were given.
        weights: usize,
        /// How many rows there are.
        rows: usize,
    },
    /// A weight is negative or not finite.
    Weight {
        /// The row it belongs to.
        row: usize,
        /// The weight.
        value: f32,
    },
    /// A value is not finite, or above [`MAGNITUDE_MAX`].
    Value {
        /// The row it stands in.
        row: usize,
        /// The column it stands in.
        column: usize,
        /// The value.
        value: f32,
    },
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::InFeatures => write!(f, "in_features is 0"),
            Self::Length {
                values,
                in_features,
            } => {
                write!(
                    f,
                    "{values} values are not whole rows of in_features {in_features}"
                )
            }
            Self::Weights { weights, rows } => write!(f, "{weights} weights for {rows} rows"),
            Self::Weight { row, value } => {
                write!(f, "weight {value} of row {row} is negative or not finite")
            }
            Self::Value { row, column, value } => {
                write!(
                    f,
                    "value {value:e} at row {row}, column {column} is not finite or above {MAGNITUDE_MAX:e}"
                )
            }
        }
    }
}

impl core::error::Error for ShapeError {}
