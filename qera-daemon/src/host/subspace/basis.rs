//! An orthonormal basis that grows block by block, and Rayleigh-Ritz on it: what all Krylov methods
//! here share.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side};
use qera_core::pseudo_random::SplitMix64;

use crate::host::dense::{eigen, product, squared_lengths};
use crate::host::kernels::page_vec::PageVec;

/// A column is spanned by the basis if less than this of it is left.
const SPANNED: f64 = 1e-12;
/// A column of which less than this is left is projected a second time. What rounding then leaves
/// along the basis stays below 1e-10, which Rayleigh-Ritz does not notice.
const AGAIN_BELOW: f64 = 1e-6;
/// With squared pivots above this, the Cholesky factor of a Gram matrix leaves columns orthonormal
/// to 1e-12.
const PIVOT_GOOD: f64 = 1e-4;
/// With a pivot below this the factor is not used at all.
const PIVOT_MIN: f64 = 1e-6;
/// A direction whose square is below this share of the strongest one's is noise of the Gram matrix.
const NOISE: f64 = 1e-13;

/// Long columns with room for more, in pages of their own. They are the large part of a Krylov
/// method's memory, are not copied as they grow, and do not stay with the allocator.
pub(crate) struct Columns {
    memory: PageVec<f64>,
    rows: usize,
    used: usize,
}

impl Columns {
    /// Room for columns, of which there are none yet.
    pub(crate) fn with_room(rows: usize, columns: usize) -> Self {
        Self {
            memory: PageVec::unwritten(rows * columns),
            rows,
            used: 0,
        }
    }

    pub(crate) const fn count(&self) -> usize {
        self.used
    }

    pub(crate) const fn clear(&mut self) {
        self.used = 0;
    }

    pub(crate) fn as_ref(&self) -> MatRef<'_, f64> {
        let used = &self.memory[..self.rows * self.used];
        MatRef::from_column_major_slice(used, self.rows, self.used)
    }

    /// Adds columns, for which there is room.
    pub(crate) fn push(&mut self, columns: MatRef<'_, f64>) {
        let (from, count) = (self.rows * self.used, columns.ncols());
        let to = &mut self.memory[from..from + self.rows * count];
        MatMut::from_column_major_slice_mut(to, self.rows, count).copy_from(columns);
        self.used += count;
    }
}

/// What `block` adds to the orthonormal columns of `basis`, orthonormal itself, at most `room`
/// columns.
pub(crate) fn orthonormalise(block: Mat<f64>, basis: MatRef<'_, f64>, room: usize) -> Mat<f64> {
    let Projection { remainder, .. } = Projection::of(block, basis);
    remainder.orthonormal(basis, room)
}

/// A block in terms of a basis.
pub(crate) struct Projection {
    /// The coordinates of the block in the basis.
    pub(crate) along: Mat<f64>,
    /// What is left of the block outside the basis.
    pub(crate) remainder: Remainder,
}

/// What a basis leaves of a block, with columns scaled to length 1; columns that the basis spans
/// are 0.
///
/// Block Gram-Schmidt, and within the block by its Gram matrix: by its Cholesky factor, or, where
/// columns depend on each other, by its eigenvectors, which say which directions are there; a
/// second time where the first leaves doubts. Products only, so that it runs at the speed of a
/// matrix product: 4 n s b + 4 n b^2 flops (CholeskyQR2: Yamamoto et al., ETNA 44 (2015) 306; by
/// eigenvectors: Stathopoulos and Wu, SIAM J. Sci. Comput. 23 (2002) 2165).
pub(crate) struct Remainder {
    block: Mat<f64>,
    lengths: Vec<f64>,
    gram: Mat<f64>,
    /// The smallest share that was left of any column.
    least: f64,
}

impl Projection {
    /// Takes the basis out of a block.
    pub(crate) fn of(mut block: Mat<f64>, basis: MatRef<'_, f64>) -> Self {
        let before = column_lengths(&block);
        let along = project_out(&mut block, basis);
        let lengths = column_lengths(&block);
        let shares = lengths.iter().zip(&before).filter(|(_, b)| **b > 0.0);
        let least = shares.map(|(left, b)| left / b).fold(1.0, f64::min);
        let gram = scale_columns(&mut block, &before, &lengths);
        let remainder = Remainder {
            block,
            lengths,
            gram,
            least,
        };
        Self { along, remainder }
    }
}

impl Remainder {
    /// The squared lengths of the combinations of the remainder that the columns of `y` describe.
    pub(crate) fn squares(&self, y: MatRef<'_, f64>) -> Vec<f64> {
        let scaled = Mat::from_fn(y.nrows(), y.ncols(), |i, j| self.lengths[i] * y[(i, j)]);
        let gram = product(self.gram.as_ref(), scaled.as_ref());
        let square = |j| {
            let terms = scaled.col(j).iter().zip(gram.col(j).iter());
            terms.map(|(a, b)| a * b).sum::<f64>().max(0.0)
        };
        (0..y.ncols()).map(square).collect()
    }

    /// An orthonormal basis of the remainder, the strongest directions first where not all fit or
    /// count.
    pub(crate) fn orthonormal(&self, basis: MatRef<'_, f64>, room: usize) -> Mat<f64> {
        let Orthonormal {
            columns: mut block,
            exact,
        } = orthonormal(self.block.as_ref(), &self.gram, room);
        if block.ncols() == 0 || (exact && self.least > AGAIN_BELOW) {
            return block;
        }
        project_out(&mut block, basis);
        let ones = vec![1.0; block.ncols()];
        let lengths = column_lengths(&block);
        let gram = scale_columns(&mut block, &ones, &lengths);
        let most = block.ncols();
        orthonormal(block.as_ref(), &gram, most).columns
    }
}

fn column_lengths(block: &Mat<f64>) -> Vec<f64> {
    squared_lengths(block).map(f64::sqrt).collect()
}

/// Takes the basis out of the block; returns the coordinates in it.
fn project_out(block: &mut Mat<f64>, basis: MatRef<'_, f64>) -> Mat<f64> {
    let along = product(basis.transpose(), block.as_ref());
    if basis.ncols() > 0 {
        matmul(
            block.as_mut(),
            Accum::Add,
            basis,
            along.as_ref(),
            -1.0,
            Par::Seq,
        );
    }
    along
}

/// Scales columns to length 1, and those of which nothing was left to 0. Returns their Gram matrix.
fn scale_columns(block: &mut Mat<f64>, before: &[f64], lengths: &[f64]) -> Mat<f64> {
    for ((column, before), length) in block.col_iter_mut().zip(before).zip(lengths) {
        let fresh = length.is_finite() && *length > SPANNED * before;
        let to = if fresh { 1.0 / length } else { 0.0 };
        column
            .iter_mut()
            .for_each(|x| *x = if fresh { *x * to } else { 0.0 });
    }
    product(block.transpose(), block.as_ref())
}

/// Orthonormal columns.
struct Orthonormal {
    columns: Mat<f64>,
    /// Whether they are orthonormal to 1e-12.
    exact: bool,
}

/// An orthonormal basis of columns of length 1 or 0, at most `most`.
fn orthonormal(block: MatRef<'_, f64>, gram: &Mat<f64>, most: usize) -> Orthonormal {
    if block.ncols() <= most
        && let Ok(factor) = gram.llt(Side::Lower)
    {
        let pivots = (0..block.ncols()).map(|j| factor.L()[(j, j)].powi(2));
        let least = pivots.fold(1.0, f64::min);
        if least > PIVOT_MIN {
            let inverse = {
                let mut inverse = Mat::identity(block.ncols(), block.ncols());
                factor.L().solve_lower_triangular_in_place(inverse.as_mut());
                inverse
            };
            return Orthonormal {
                columns: product(block, inverse.transpose()),
                exact: least > PIVOT_GOOD,
            };
        }
    }
    let Ok(pairs) = eigen(gram) else {
        return Orthonormal {
            columns: Mat::zeros(block.nrows(), 0),
            exact: false,
        };
    };
    let (mut rotation, values) = (pairs.vectors, pairs.values);
    let kept = values
        .iter()
        .take(most)
        .take_while(|&&value| value > NOISE * values[0])
        .count();
    for (column, value) in rotation.col_iter_mut().zip(&values).take(kept) {
        let to = 1.0 / value.sqrt();
        column.iter_mut().for_each(|x| *x *= to);
    }
    Orthonormal {
        columns: product(block, rotation.as_ref().subcols(0, kept)),
        exact: false,
    }
}

/// A fixed pseudo-random start, the same for every run.
pub(crate) fn start(n: usize, columns: usize) -> Mat<f64> {
    let mut sequence = SplitMix64::new(0);
    // The first number has never been part of a start.
    sequence.next_bits();
    Mat::from_fn(n, columns, |_, _| sequence.next_symmetric())
}
