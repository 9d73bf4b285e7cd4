//! A large f32 matrix as it lies in memory.

use faer::MatRef;

/// A matrix by columns. A checkpoint's [out_features, in_features] by rows is W and E, m x n, in
/// this form.
#[derive(Debug, Clone, Copy)]
pub struct ColumnMajor<'a> {
    /// The columns, one after the other.
    pub values: &'a [f32],
    /// Numbers of a column.
    pub rows: usize,
}

impl<'a> ColumnMajor<'a> {
    /// Columns that are `rows` numbers long.
    #[must_use]
    pub const fn new(values: &'a [f32], rows: usize) -> Self {
        Self { values, rows }
    }

    /// How many columns.
    #[must_use]
    pub(crate) const fn columns(&self) -> usize {
        if self.rows == 0 {
            return 0;
        }
        self.values.len() / self.rows
    }

    /// Whether every element is zero.
    pub(crate) fn is_zero(&self) -> bool {
        self.values.iter().all(|x| *x == 0.0)
    }

    pub(crate) fn as_mat(&self) -> MatRef<'a, f32> {
        MatRef::from_column_major_slice(self.values, self.rows, self.columns())
    }
}
