//! The top eigenvectors of many blends of two small matrices.
//!
//! G_a = (1 - a) G_0 + a G_1 moves slowly with a, and a full eigenproblem for each of nine candidates
//! is most of what the choice of the shrinkage costs. So three candidates, the *anchors*, are
//! decomposed whole, and every other one in the span of the top vectors of the two anchors that it
//! lies between, some more than k of each. A vector that this span lacks by an angle theta changes
//! what is captured by theta^2 (Rayleigh-Ritz): held-out errors of all nine are within 1e-4 of those
//! of whole eigenproblems (test `between_anchors_little_is_lost`), where their intervals are some
//! 10 % wide.

use faer::Mat;

use crate::host::dense::{eigen, product};
use crate::host::solve_error::SolveError;
use crate::host::subspace::basis::orthonormalise;
use crate::judge::ends::Ends;

/// Vectors of an anchor beyond the k that are asked for: those that come near them between anchors.
const MORE: usize = 8;

/// The top k eigenvectors under each of these a, which ascend, as columns.
///
/// # Errors
/// [`SolveError`]: numbers that overflowed.
pub(crate) fn tops(ends: &Ends, candidates: &[f64], k: usize) -> Result<Vec<Mat<f64>>, SolveError> {
    let size = ends.size();
    let kept = k + MORE;
    // Where the span is hardly smaller than the space, nothing is won.
    if candidates.len() < 5 || 3 * kept > size {
        return candidates.iter().map(|&a| top(ends, a, k)).collect();
    }
    let last = candidates.len() - 1;
    let mut tops = Vec::with_capacity(candidates.len());
    for [first, end] in [[0, last / 2], [last / 2, last]] {
        let between = &candidates[first + 1..end];
        let lower = top(ends, candidates[first], kept)?;
        let upper = top(ends, candidates[end], kept)?;
        if tops.is_empty() {
            tops.push(lower.subcols(0, k.min(size)).to_owned());
        }
        let span = spanned(&lower, &upper);
        let within = ends.within(&span);
        for &a in between {
            tops.push(product(span.as_ref(), top(&within, a, k)?.as_ref()));
        }
        tops.push(upper.subcols(0, k.min(size)).to_owned());
    }
    Ok(tops)
}

/// The top eigenvectors under a, as many as there are of `count`.
pub(crate) fn top(ends: &Ends, a: f64, count: usize) -> Result<Mat<f64>, SolveError> {
    let vectors = eigen(&ends.blend(a))?.vectors;
    Ok(vectors.subcols(0, count.min(vectors.ncols())).to_owned())
}

/// An orthonormal basis of all these columns.
fn spanned(first: &Mat<f64>, second: &Mat<f64>) -> Mat<f64> {
    let (n, p) = (first.nrows(), first.ncols());
    let more = orthonormalise(second.clone(), first.as_ref(), n - p);
    let mut all = Mat::zeros(n, p + more.ncols());
    all.as_mut().subcols_mut(0, p).copy_from(first);
    all.as_mut().subcols_mut(p, more.ncols()).copy_from(&more);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 160;
    const K: usize = 32;
    const CANDIDATES: [f64; 9] = [0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0];

    /// A random matrix with entries in -1 to 1.
    fn random(seed: u64, rows: usize, columns: usize) -> Mat<f64> {
        let mut sequence = qera_core::pseudo_random::SplitMix64::new(seed);
        let mut next = || (sequence.next_bits() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
        Mat::from_fn(rows, columns, |_, _| next())
    }

    /// X^T X with a spectrum that decays as those of layers do, in a basis of its own.
    fn gram(seed: u64) -> Mat<f64> {
        let x = random(seed, 2 * SIZE, SIZE);
        let scaled = Mat::from_fn(2 * SIZE, SIZE, |i, j| x[(i, j)] / (1.0 + j as f64).sqrt());
        let mixed = product(scaled.as_ref(), random(seed + 1, SIZE, SIZE).as_ref());
        product(mixed.transpose(), mixed.as_ref())
    }

    /// Ends that have much in common, as R and its diagonal have.
    fn ends() -> Ends {
        let common = gram(1);
        let with = |other: &Mat<f64>| &common + other * faer::Scale(0.5);
        Ends {
            full: Some(with(&gram(3))),
            diagonal: Some(with(&gram(5))),
        }
    }

    fn captured(ends: &Ends, a: f64, vectors: &Mat<f64>) -> f64 {
        let image = product(ends.blend(a).as_ref(), vectors.as_ref());
        let inner = product(vectors.transpose(), image.as_ref());
        (0..inner.nrows()).map(|i| inner[(i, i)]).sum()
    }

    #[test]
    fn between_anchors_little_is_lost() {
        let ends = ends();
        let all = tops(&ends, &CANDIDATES, K).unwrap();
        assert_eq!(all.len(), CANDIDATES.len());
        for (&a, found) in CANDIDATES.iter().zip(&all) {
            assert_eq!((found.nrows(), found.ncols()), (SIZE, K));
            let whole = captured(&ends, a, &top(&ends, a, K).unwrap());
            let all_of_it = captured(&ends, a, &Mat::identity(SIZE, SIZE));
            let lost = (whole - captured(&ends, a, found)) / (all_of_it - whole);
            assert!((-1e-9..1e-2).contains(&lost), "a = {a}: {lost}");
        }
    }

    /// Few candidates, or a small space: each by itself.
    #[test]
    fn where_nothing_is_won_each_is_whole() {
        let ends = ends();
        for (candidates, k) in [(&CANDIDATES[..1], K), (&CANDIDATES[..], 60)] {
            let all = tops(&ends, candidates, k).unwrap();
            for (&a, found) in candidates.iter().zip(&all) {
                assert!(*found == top(&ends, a, k).unwrap());
            }
        }
    }
}
