//! How good Ritz values are.

/// What the top `count` Ritz values lack of the eigenvalues: at most the squared residuals over the
/// gaps to the rest of the spectrum (Parlett, The Symmetric Eigenvalue Problem, 11.7), which is
/// taken to begin at the last Ritz value.
pub(crate) fn lacking(values: &[f64], count: usize, squares: &[f64]) -> f64 {
    if count == 0 {
        return 0.0;
    }
    let floor = values.last().copied().unwrap_or_default();
    let smallest = values[count - 1];
    let gap = |value: f64| (value - floor).max(1e-3 * smallest).max(f64::MIN_POSITIVE);
    let pairs = squares.iter().zip(values);
    pairs.map(|(square, &value)| square / gap(value)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::dense::product;
    use faer::Mat;

    /// G = diag(4, 2, 1): of v = (cos, sin, 0) the value is 4 cos^2 + 2 sin^2, and 2 sin^2 is
    /// lacking.
    #[test]
    fn what_is_lacking_is_bounded() {
        let g = Mat::from_fn(3, 3, |i, j| if i == j { [4.0, 2.0, 1.0][i] } else { 0.0 });
        let (sin, cos) = (0.01_f64.sin(), 0.01_f64.cos());
        // The second vector kept is e_3.
        let v = Mat::from_fn(3, 2, |i, j| [[cos, 0.0], [sin, 0.0], [0.0, 1.0]][i][j]);
        let image = &g * &v;
        let small = product(v.transpose(), image.as_ref());
        let residual = &image - product(v.as_ref(), small.as_ref());
        let squares = [residual.col(0).squared_norm_l2()];
        let bound = lacking(&[small[(0, 0)], small[(1, 1)]], 1, &squares);
        let truth = 2.0 * sin * sin;
        assert!(
            bound > 0.6 * truth && bound < 3.0 * truth,
            "{bound} {truth}"
        );
    }
}
