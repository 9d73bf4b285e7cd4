//! The loops over contiguous columns that every routine here is made of, and the search for the
//! largest element.
//!
//! Eight partial sums, added in one fixed order, let the compiler use vector registers without the
//! freedom to reassociate, so the result does not depend on the optimisation level. The error of
//! `dot` is at most `(n/8 + 4) eps |x|^T |y|`.

use nalgebra::{Dyn, Matrix, RawStorage};

const LANES: usize = 8;

fn fold(lanes: [f64; LANES]) -> f64 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// `x^T y`.
pub(crate) fn dot(x: &[f64], y: &[f64]) -> f64 {
    let (x_lanes, x_tail) = x.as_chunks::<LANES>();
    let (y_lanes, y_tail) = y.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (x, y) in x_lanes.iter().zip(y_lanes) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    let mut sum = fold(sums);
    for (x, y) in x_tail.iter().zip(y_tail) {
        sum += x * y;
    }
    sum
}

/// `x^T x`.
pub(crate) fn squared_norm(x: &[f64]) -> f64 {
    dot(x, x)
}

/// `y += alpha x`.
pub(crate) fn add_scaled(alpha: f64, x: &[f64], y: &mut [f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += alpha * x;
    }
}

/// `y += alpha r`, and returns `r^T x`: one pass over `r` for both halves of a symmetric row.
pub(crate) fn dot_add_scaled(r: &[f64], x: &[f64], alpha: f64, y: &mut [f64]) -> f64 {
    let (r_lanes, r_tail) = r.as_chunks::<LANES>();
    let (x_lanes, x_tail) = x.as_chunks::<LANES>();
    let (y_lanes, y_tail) = y.as_chunks_mut::<LANES>();
    let mut sums = [0.0; LANES];
    for ((r, x), y) in r_lanes.iter().zip(x_lanes).zip(y_lanes) {
        for lane in 0..LANES {
            sums[lane] += r[lane] * x[lane];
            y[lane] += alpha * r[lane];
        }
    }
    let mut sum = fold(sums);
    for ((r, x), y) in r_tail.iter().zip(x_tail).zip(y_tail) {
        sum += r * x;
        *y += alpha * r;
    }
    sum
}

/// A power of two `s` that brings `largest` to [1/2, 1) (or as near as a normal `s` and `1/s`
/// allow), so that scaling by it is exact; 1 when `largest` is zero.
pub(crate) fn power_of_two_scale(largest: f64) -> f64 {
    if largest > 0.0 {
        let (_, exponent) = libm::frexp(largest);
        // Kept inside the normal range so that the scale and its reciprocal are both exact.
        libm::ldexp(1.0, (-exponent).clamp(-1021, 1021))
    } else {
        1.0
    }
}

/// Index of the largest value from `first` on; of equal ones the first.
pub(super) fn largest_from(values: &[f64], first: usize) -> usize {
    let mut best = first;
    for j in first + 1..values.len() {
        if values[j] > values[best] {
            best = j;
        }
    }
    best
}

/// Which elements of a matrix are searched.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Whole,
    /// The lower triangle, diagonal included.
    Lower,
}

/// The place of an element that is NaN or infinite.
#[derive(Clone, Copy, Debug)]
pub(super) struct NonFinite {
    pub(super) row: usize,
    pub(super) column: usize,
}

/// Largest magnitude of a part of a matrix, which must be finite.
pub(super) fn largest_magnitude<S: RawStorage<f64, Dyn, Dyn>>(
    a: &Matrix<f64, Dyn, Dyn, S>,
    part: Part,
) -> Result<f64, NonFinite> {
    let mut largest = 0.0_f64;
    for column in 0..a.ncols() {
        let first = match part {
            Part::Whole => 0,
            Part::Lower => column,
        };
        for row in first..a.nrows() {
            let magnitude = libm::fabs(a[(row, column)]);
            if !magnitude.is_finite() {
                return Err(NonFinite { row, column });
            }
            largest = largest.max(magnitude);
        }
    }
    Ok(largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_and_fused_product_match_the_plain_loop() {
        let r: [f64; 21] = core::array::from_fn(|i| (i as f64) - 7.5);
        let x: [f64; 21] = core::array::from_fn(|i| 1.0 / (1.0 + i as f64));
        let mut y = [0.25; 21];
        let plain: f64 = r.iter().zip(&x).map(|(r, x)| r * x).sum();
        assert!((dot(&r, &x) - plain).abs() < 1e-14);
        assert!((dot_add_scaled(&r, &x, 0.5, &mut y) - plain).abs() < 1e-14);
        for (y, r) in y.iter().zip(&r) {
            assert!((y - (0.25 + 0.5 * r)).abs() < 1e-15);
        }
    }

    #[test]
    fn scales_are_exact_powers_of_two() {
        for largest in [1.0, 0.75, 3.0e300, 5.0e-324, 2.0] {
            let s = power_of_two_scale(largest);
            assert_eq!(libm::frexp(s).0.to_bits(), 0.5_f64.to_bits());
            assert!((largest * s) < 1.0);
        }
        assert_eq!(power_of_two_scale(0.0).to_bits(), 1.0_f64.to_bits());
    }
}
