//! Gram-Schmidt of one column against the basis.

use super::super::columns::{add_scaled, dot, squared_norm};

/// Two passes of Gram-Schmidt against `before`, then scaling to norm 1. False when nothing was left
/// of the column, which then holds no usable direction (or a non-finite one).
pub(super) fn orthonormalise_column(before: &[f64], column: &mut [f64], n: usize) -> bool {
    let original = libm::sqrt(squared_norm(column));
    project_out(before, column, n);
    let once = libm::sqrt(squared_norm(column));
    project_out(before, column, n);
    let twice = libm::sqrt(squared_norm(column));
    // Below this the first pass left only its own rounding error. If the second pass still removes
    // half, so did the first.
    let noise = f64::EPSILON * (1 + before.len() / n) as f64 * original;
    if !original.is_finite() || once <= noise || twice <= 0.5 * once || twice < f64::MIN_POSITIVE {
        return false;
    }
    column.iter_mut().for_each(|x| *x /= twice);
    true
}

/// `column -= K (K^T column)`, one basis column after another (the modified form: the same cost, a
/// little more accurate).
fn project_out(before: &[f64], column: &mut [f64], n: usize) {
    for k in before.chunks_exact(n) {
        let coefficient = dot(k, column);
        add_scaled(-coefficient, k, column);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_inside_the_basis_is_refused_and_one_outside_is_normalised() {
        let before = [0.6, 0.8, 0.0];
        assert!(!orthonormalise_column(&before, &mut [1.2, 1.6, 0.0], 3));
        assert!(!orthonormalise_column(&before, &mut [0.0; 3], 3));
        assert!(!orthonormalise_column(
            &before,
            &mut [f64::NAN, 0.0, 0.0],
            3
        ));
        let mut outside = [0.6, 0.8, -2.0];
        assert!(orthonormalise_column(&before, &mut outside, 3));
        assert!(outside[0].abs() < 1e-15 && (outside[2] + 1.0).abs() < 1e-15);
    }
}
