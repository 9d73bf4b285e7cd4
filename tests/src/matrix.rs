//! A small owned matrix for tests: column-major storage that lends itself as a view to qera-core,
//! with the few operations that checks need. (nalgebra is built without a heap here, as qera-core
//! needs it; factorisations come from the oracle.)

use core::ops::{Add, Index, IndexMut, Mul, Sub};

use nalgebra::{DMatrixView, DMatrixViewMut};

/// Rows x columns, column-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    /// Entry by entry, columns first.
    #[must_use]
    pub fn from_fn(rows: usize, columns: usize, mut f: impl FnMut(usize, usize) -> f64) -> Self {
        let values = (0..columns)
            .flat_map(|j| (0..rows).map(move |i| (i, j)))
            .map(|(i, j)| f(i, j))
            .collect();
        Self {
            rows,
            columns,
            values,
        }
    }

    /// From column-major values.
    #[must_use]
    pub fn from_columns(rows: usize, columns: usize, values: Vec<f64>) -> Self {
        assert_eq!(values.len(), rows * columns);
        Self {
            rows,
            columns,
            values,
        }
    }

    /// From rows, as they are written on paper.
    #[must_use]
    pub fn from_rows<const N: usize>(rows: &[[f64; N]]) -> Self {
        Self::from_fn(rows.len(), N, |i, j| rows[i][j])
    }

    /// All entries equal.
    #[must_use]
    pub fn filled(rows: usize, columns: usize, value: f64) -> Self {
        Self::from_fn(rows, columns, |_, _| value)
    }

    /// All zero.
    #[must_use]
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Self::filled(rows, columns, 0.0)
    }

    /// `diag(values)`.
    #[must_use]
    pub fn diagonal(values: &[f64]) -> Self {
        Self::from_fn(values.len(), values.len(), |i, j| {
            if i == j { values[i] } else { 0.0 }
        })
    }

    /// The identity.
    #[must_use]
    pub fn identity(n: usize) -> Self {
        Self::diagonal(&vec![1.0; n])
    }

    /// Number of rows.
    #[must_use]
    pub const fn nrows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[must_use]
    pub const fn ncols(&self) -> usize {
        self.columns
    }

    /// The values, column after column.
    #[must_use]
    pub fn as_slice(&self) -> &[f64] {
        &self.values
    }

    /// As qera-core takes it.
    #[must_use]
    pub fn view(&self) -> DMatrixView<'_, f64> {
        DMatrixView::from_slice(&self.values, self.rows, self.columns)
    }

    /// As qera-core writes it.
    #[must_use]
    pub fn view_mut(&mut self) -> DMatrixViewMut<'_, f64> {
        DMatrixViewMut::from_slice(&mut self.values, self.rows, self.columns)
    }

    /// The first `columns` columns.
    #[must_use]
    pub fn leading(&self, columns: usize) -> Self {
        Self::from_columns(
            self.rows,
            columns,
            self.values[..columns * self.rows].to_vec(),
        )
    }

    /// The transpose.
    #[must_use]
    pub fn transpose(&self) -> Self {
        Self::from_fn(self.columns, self.rows, |i, j| self[(j, i)])
    }

    /// Every entry multiplied.
    #[must_use]
    pub fn scale(&self, factor: f64) -> Self {
        Self::from_fn(self.rows, self.columns, |i, j| self[(i, j)] * factor)
    }

    /// `(A + A^T) / 2`.
    #[must_use]
    pub fn symmetrised(&self) -> Self {
        Self::from_fn(self.rows, self.rows, |i, j| {
            0.5 * self[(i, j)] + 0.5 * self[(j, i)]
        })
    }

    /// Frobenius norm, without overflow.
    #[must_use]
    pub fn norm(&self) -> f64 {
        let largest = self.values.iter().fold(0.0_f64, |a, x| a.max(x.abs()));
        if largest > 0.0 {
            let sum: f64 = self.values.iter().map(|x| (x / largest).powi(2)).sum();
            largest * sum.sqrt()
        } else {
            0.0
        }
    }

    /// Sum of the diagonal.
    #[must_use]
    pub fn trace(&self) -> f64 {
        (0..self.rows).map(|i| self[(i, i)]).sum()
    }

    /// `||X^T X - I||_F`.
    #[must_use]
    pub fn orthogonality_defect(&self) -> f64 {
        (&(&self.transpose() * self) - &Self::identity(self.columns)).norm()
    }

    /// As the oracle takes it.
    #[must_use]
    pub fn to_faer(&self) -> faer::Mat<f64> {
        faer::Mat::from_fn(self.rows, self.columns, |i, j| self[(i, j)])
    }

    /// From the oracle.
    #[must_use]
    pub fn from_faer(a: faer::MatRef<'_, f64>) -> Self {
        Self::from_fn(a.nrows(), a.ncols(), |i, j| a[(i, j)])
    }
}

impl Index<(usize, usize)> for Matrix {
    type Output = f64;

    fn index(&self, (i, j): (usize, usize)) -> &f64 {
        &self.values[j * self.rows + i]
    }
}

impl IndexMut<(usize, usize)> for Matrix {
    fn index_mut(&mut self, (i, j): (usize, usize)) -> &mut f64 {
        &mut self.values[j * self.rows + i]
    }
}

impl Mul for &Matrix {
    type Output = Matrix;

    fn mul(self, other: Self) -> Matrix {
        Matrix::from_faer((self.to_faer() * other.to_faer()).as_ref())
    }
}

impl Add for &Matrix {
    type Output = Matrix;

    fn add(self, other: Self) -> Matrix {
        Matrix::from_fn(self.rows, self.columns, |i, j| self[(i, j)] + other[(i, j)])
    }
}

impl Sub for &Matrix {
    type Output = Matrix;

    fn sub(self, other: Self) -> Matrix {
        Matrix::from_fn(self.rows, self.columns, |i, j| self[(i, j)] - other[(i, j)])
    }
}
