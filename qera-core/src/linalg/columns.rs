//! The loops over contiguous columns that every routine here is made of.
//!
//! Eight partial sums, added in one fixed order, let the compiler use vector registers without the freedom to reassociate,
//! so the result does not depend on the optimisation level. The error of `dot` is at most `(n/8 + 4) eps |x|^T |y|`.

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

/// Plane rotation of two columns by the angle with sine `s` and `tau = s / (1 + c)`:
/// `x <- c x - s y`, `y <- s x + c y`, written as corrections so that a small angle loses nothing.
pub(crate) fn rotate(s: f64, tau: f64, x: &mut [f64], y: &mut [f64]) {
    for (x, y) in x.iter_mut().zip(y.iter_mut()) {
        let (g, h) = (*x, *y);
        *x = g - s * (h + g * tau);
        *y = h + s * (g - h * tau);
    }
}

/// Tangent of the smaller angle that makes a 2 x 2 symmetric matrix `[[p, g], [g, q]]` diagonal, for `g != 0`.
pub(crate) fn small_tangent(p: f64, q: f64, g: f64) -> f64 {
    let theta = (q - p) / (2.0 * g);
    // Beyond 2^500 the square would overflow, and theta + sqrt(1 + theta^2) is 2 theta to the last bit long before.
    let magnitude = libm::fabs(theta);
    let t = if magnitude > 3.0e150 {
        0.5 / magnitude
    } else {
        1.0 / (magnitude + libm::sqrt(1.0 + theta * theta))
    };
    libm::copysign(t, theta)
}

/// A power of two `s` that brings `largest` to [1/2, 1) (or as near as a normal `s` and `1/s` allow), so that scaling by it
/// is exact; 1 when `largest` is zero.
pub(crate) fn power_of_two_scale(largest: f64) -> f64 {
    if largest > 0.0 {
        let (_, exponent) = libm::frexp(largest);
        // Kept inside the normal range so that the scale and its reciprocal are both exact.
        libm::ldexp(1.0, (-exponent).clamp(-1021, 1021))
    } else {
        1.0
    }
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
    fn a_rotation_makes_the_pair_diagonal() {
        for (p, q, g) in [
            (1.0, 2.0, 0.5),
            (1.0, 1.0, 1e-3),
            (0.0, 1.0, 1e-200),
            (3.0, -2.0, -4.0),
        ] {
            let t = small_tangent(p, q, g);
            assert!(t.abs() <= 1.0);
            // Off-diagonal element after the rotation, relative to what it was.
            let c = 1.0 / libm::sqrt(1.0 + t * t);
            let s = t * c;
            let off = (c * c - s * s) * g + c * s * (p - q);
            assert!(
                off.abs() <= 1e-15 * g.abs().max(p.abs() * s.abs()),
                "{p} {q} {g}: {off}"
            );
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
