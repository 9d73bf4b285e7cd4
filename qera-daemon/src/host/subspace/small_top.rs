//! The top eigenpairs of a small matrix, without the others.
//!
//! The matrix is made tridiagonal by reflections, and only some eigenpairs of that are found
//! (`tridiagonal`): for 32 of 160 this takes half the time of finding all. Where values repeat, so
//! that their vectors cannot be told apart, all are found instead.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::tridiag::{tridiag_in_place, tridiag_in_place_scratch};
use faer::linalg::householder::{
    apply_block_householder_sequence_on_the_left_in_place_scratch as apply_scratch,
    apply_block_householder_sequence_on_the_left_in_place_with_conj as apply_reflections,
};
use faer::linalg::qr::no_pivoting::factor::recommended_block_size;
use faer::{Conj, Mat, MatRef, Par, Spec};

use crate::host::dense::{Eigenpairs, eigen, symmetric_part};
use crate::host::solve_error::SolveError;
use crate::host::subspace::basis::orthonormalise;
use crate::host::subspace::tridiagonal::Tridiagonal;

/// Below this size all eigenpairs cost no more than some of them.
const SIZE_MIN: usize = 64;

/// The `count` largest eigenvalues of the symmetric part with their vectors, or as many as it has.
/// Takes half the time of finding all, where they are a fifth of all.
///
/// # Errors
/// [`SolveError`]: a number that is not finite, or no convergence.
pub(crate) fn top_eigen(g: &Mat<f64>, count: usize) -> Result<Eigenpairs, SolveError> {
    let n = g.nrows();
    if n >= SIZE_MIN && count <= n.div_ceil(3) {
        let tridiagonal = Reduced::of(symmetric_part(g)?);
        if let Some(pairs) = tridiagonal.top(count) {
            return Ok(pairs);
        }
    }
    let mut all = eigen(g)?;
    if count < n {
        all.values.truncate(count);
        all.vectors = all.vectors.subcols(0, count).to_owned();
    }
    Ok(all)
}

/// A symmetric matrix Q T Q^T with T tridiagonal.
struct Reduced {
    /// T, and below it the vectors of Q's reflections.
    matrix: Mat<f64>,
    /// The factors of the reflections, in blocks.
    factors: Mat<f64>,
}

impl Reduced {
    /// Reduces a matrix by Householder's reflections, in 4 n^3 / 3 flops.
    fn of(mut matrix: Mat<f64>) -> Self {
        let n = matrix.nrows();
        let block = recommended_block_size::<f64>(n, n);
        let mut factors = Mat::zeros(block, n - 1);
        let parameters = Spec::default();
        let scratch = tridiag_in_place_scratch::<f64>(n, Par::Seq, parameters);
        let mut scratch = MemBuffer::new(scratch);
        let stack = MemStack::new(&mut scratch);
        tridiag_in_place(
            matrix.as_mut(),
            factors.as_mut(),
            Par::Seq,
            stack,
            parameters,
        );
        Self { matrix, factors }
    }

    fn top(&self, count: usize) -> Option<Eigenpairs> {
        let n = self.matrix.nrows();
        let diagonal = (0..n).map(|i| self.matrix[(i, i)]).collect();
        let beside = (1..n).map(|i| self.matrix[(i, i - 1)]).collect();
        let tridiagonal = Tridiagonal::new(diagonal, beside)?;
        let found = tridiagonal.near_top(count);
        let none = MatRef::from_row_major_slice(&[], n, 0);
        let mut vectors = orthonormalise(found, none, count);
        let values = tridiagonal.values_of(&vectors)?;
        if values.len() < count {
            return None;
        }
        let block = self.factors.nrows();
        let scratch = apply_scratch::<f64>(n - 1, block, count);
        let mut scratch = MemBuffer::new(scratch);
        apply_reflections(
            self.matrix.submatrix(1, 0, n - 1, n - 1),
            self.factors.as_ref(),
            Conj::No,
            vectors.as_mut().subrows_mut(1, n - 1),
            Par::Seq,
            MemStack::new(&mut scratch),
        );
        Some(Eigenpairs { vectors, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::dense::product;
    use qera_core::pseudo_random::SplitMix64;

    /// The largest pairs of a decaying spectrum, found alone, are those of finding all.
    #[test]
    fn some_eigenpairs_are_those_of_all() {
        const N: usize = 160;
        for (seed, decay) in [(1, 0.0), (2, 0.05), (3, 0.15)] {
            let mut sequence = SplitMix64::new(seed);
            let x = Mat::from_fn(2 * N, N, |_, j| {
                sequence.next_symmetric() * (-decay * j as f64).exp()
            });
            let g = x.transpose() * &x;
            let (all, top) = (eigen(&g).unwrap(), top_eigen(&g, 40).unwrap());
            assert!(
                Reduced::of(g.clone()).top(40).is_some(),
                "not by way of all"
            );
            let largest = all.values[0];
            for (one, other) in top.values.iter().zip(&all.values) {
                assert!((one - other).abs() < 1e-13 * largest);
            }
            let image = product(g.as_ref(), top.vectors.as_ref());
            let scaled = Mat::from_fn(N, 40, |i, j| top.vectors[(i, j)] * top.values[j]);
            assert!((image - scaled).norm_max() < 1e-12 * largest);
            let gram = product(top.vectors.transpose(), top.vectors.as_ref());
            assert!((gram - Mat::<f64>::identity(40, 40)).norm_max() < 1e-12);
        }
    }

    /// Where values repeat, all pairs are found, and the asked number is returned.
    #[test]
    fn some_of_values_that_repeat_are_as_many_as_asked() {
        const N: usize = 96;
        let g = Mat::from_fn(N, N, |i, j| if i == j { 1.0 + (i / 8) as f64 } else { 0.0 });
        let top = top_eigen(&g, 20).unwrap();
        let expected = (0..20).map(|j| 1.0 + ((N - 1 - j) / 8) as f64);
        for (value, expected) in top.values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-12);
        }
        let gram = product(top.vectors.transpose(), top.vectors.as_ref());
        assert!((gram - Mat::<f64>::identity(20, 20)).norm_max() < 1e-12);
        assert!(top_eigen(&Mat::from_fn(N, N, |_, _| f64::NAN), 20).is_err());
        let zero = top_eigen(&Mat::zeros(N, N), 20).unwrap();
        assert!(zero.vectors.ncols() == 20 && zero.values.iter().all(|value| *value == 0.0));
    }
}
