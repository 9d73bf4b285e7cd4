//! Loops over contiguous f32 columns, for devices without f64 arithmetic: products and sums of up
//! to 64 terms in f32, everything longer in f64.

/// How many products are summed in f32 before the sum is widened: eight lanes of eight.
const PIECE: usize = 64;
const LANES: usize = 8;

/// The product `x^T y`. It is off by at most 2^-20 sum |x_i y_i|, by the same amount on every
/// machine.
pub(crate) fn narrow_dot(x: &[f32], y: &[f32]) -> f64 {
    let mut total = 0.0_f64;
    for (x, y) in x.chunks(PIECE).zip(y.chunks(PIECE)) {
        let (x_lanes, x_tail) = x.as_chunks::<LANES>();
        let (y_lanes, y_tail) = y.as_chunks::<LANES>();
        let mut sums = [0.0_f32; LANES];
        for (x, y) in x_lanes.iter().zip(y_lanes) {
            for lane in 0..LANES {
                sums[lane] += x[lane] * y[lane];
            }
        }
        for (sum, (x, y)) in sums.iter_mut().zip(x_tail.iter().zip(y_tail)) {
            *sum += x * y;
        }
        let [a, b, c, d, e, f, g, h] = sums;
        total += f64::from(((a + e) + (c + g)) + ((b + f) + (d + h)));
    }
    total
}

/// `y += alpha x`.
pub(crate) fn add_scaled_narrow(alpha: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += alpha * x;
    }
}

/// Rounds to f32.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is the purpose"
)]
pub(crate) const fn narrow(value: f64) -> f32 {
    value as f32
}
