//! The rotation in which rounding costs the same in every direction.
//!
//! When numbers are rounded one after the other under H = L L^T, each making good what those before
//! it lost, the loss is sum_j L_jj^2 times the square of a step (`block_rounding`). The product of
//! the L_jj^2 is det H in every basis. So the sum is least where they are equal: k times the
//! geometric mean of H's eigenvalues, while in the eigenbasis it is the eigenvalues' sum. A channel
//! of 1e3 times the others makes an eigenvalue of 1e6, with which the sum of 32 eigenvalues is 2e4
//! times as large as it need be.
//!
//! An orthogonal P with P^T diag(values) P = L L^T and equal L_jj is found by k - 1 plane
//! rotations: each takes a length (the root of an eigenvalue) above the mean and one below it, and
//! leaves the mean and what keeps their product. Source: the geometric mean decomposition, Jiang,
//! Hager and Li, Linear Algebra and its Applications 396 (2005).

use faer::Mat;

/// A direction that is not part of P yet.
struct Direction {
    /// The square root of its eigenvalue.
    length: f64,
    vector: Vec<f64>,
}

/// P, k x k, for k positive numbers.
pub(crate) fn equal_pivots(values: &[f64]) -> Mat<f64> {
    let k = values.len();
    let direction = |(at, value): (usize, &f64)| {
        let mut vector = vec![0.0; k];
        vector[at] = 1.0;
        let length = value.sqrt();
        Direction { length, vector }
    };
    let mut rest: Vec<Direction> = values.iter().enumerate().map(direction).collect();
    let logarithms = rest.iter().map(|of| of.length.ln());
    let mean = (logarithms.sum::<f64>() / k as f64).exp();
    let mut columns = Vec::with_capacity(k);
    while let Some(Pair { above, below }) = take_pair(&mut rest, mean) {
        let (high, low) = (above.length, below.length);
        let part = |of: f64| (of - low) * (of + low);
        let cosine = (part(mean) / part(high)).sqrt().min(1.0);
        let sine = (1.0 - cosine * cosine).sqrt();
        let turned = |cosine: f64, sine: f64| -> Vec<f64> {
            let numbers = above.vector.iter().zip(&below.vector);
            numbers.map(|(x, y)| cosine * x + sine * y).collect()
        };
        columns.push(turned(cosine, sine));
        rest.push(Direction {
            length: high / mean * low,
            vector: turned(-sine, cosine),
        });
    }
    // What is left has the mean's length, up to rounding.
    columns.extend(rest.into_iter().map(|of| of.vector));
    Mat::from_fn(k, k, |i, j| columns[j][i])
}

/// Two directions, one longer than the mean and one shorter.
struct Pair {
    above: Direction,
    below: Direction,
}

/// Takes out the longer and the shorter direction that are nearest to the mean. `None` where all
/// that is left lies on one side, and so is the mean up to rounding.
fn take_pair(rest: &mut Vec<Direction>, mean: f64) -> Option<Pair> {
    let (mut above, mut below) = (None::<usize>, None::<usize>);
    for (at, of) in rest.iter().enumerate() {
        if of.length > mean {
            if above.is_none_or(|other| of.length < rest[other].length) {
                above = Some(at);
            }
        } else if below.is_none_or(|other| of.length > rest[other].length) {
            below = Some(at);
        }
    }
    let (above, below) = (above?, below?);
    // The one further back is removed first, so that the other keeps its place.
    let last = rest.remove(above.max(below));
    let first = rest.remove(above.min(below));
    Some(if above < below {
        Pair {
            above: first,
            below: last,
        }
    } else {
        Pair {
            above: last,
            below: first,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::dense::product;
    use faer::Side;
    use qera_core::pseudo_random::SplitMix64;

    fn check(values: &[f64]) {
        let k = values.len();
        let p = equal_pivots(values);
        let identity = product(p.transpose(), p.as_ref());
        assert!((&identity - Mat::<f64>::identity(k, k)).norm_max() < 1e-13);
        let scaled = Mat::from_fn(k, k, |i, j| values[i] * p[(i, j)]);
        let h = product(p.transpose(), scaled.as_ref());
        let factor = h.llt(Side::Lower).unwrap();
        let mean = values.iter().map(|value| value.ln()).sum::<f64>() / k as f64;
        for j in 0..k {
            let pivot = factor.L()[(j, j)].powi(2);
            // Cholesky itself loses eps times the condition number of H.
            let ratio = pivot / mean.exp();
            assert!((ratio - 1.0).abs() < 1e-3, "{j} of {values:?}: {ratio}");
        }
    }

    #[test]
    fn every_pivot_is_the_geometric_mean() {
        let mut sequence = SplitMix64::new(5);
        for k in [1, 2, 3, 32, 65] {
            let decays = (0..k).map(|j| 0.9_f64.powi(j));
            let mut values: Vec<f64> = decays.collect();
            check(&values);
            values[0] = 1e6;
            check(&values);
            if k > 3 {
                (values[1], values[2]) = (3e8, 2e5);
                check(&values);
            }
            let random = values
                .iter()
                .map(|_| (4.0 * sequence.next_symmetric()).exp());
            check(&random.collect::<Vec<_>>());
            check(&vec![7.0; values.len()]);
        }
    }

    #[test]
    fn no_numbers_have_no_rotation() {
        assert_eq!(equal_pivots(&[]).nrows(), 0);
    }
}
