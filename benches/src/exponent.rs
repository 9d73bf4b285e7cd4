//! The exponent of a power law.

/// p of the best y = c x^p: the slope of ln y over ln x by least squares. Points are (x, y), both
/// positive, two different x at least.
#[must_use]
pub fn exponent(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<_> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let count = logs.len() as f64;
    let mean_x = logs.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = logs.iter().map(|(_, y)| y).sum::<f64>() / count;
    let with = |f: fn(f64, f64) -> f64| -> f64 {
        logs.iter().map(|(x, y)| f(x - mean_x, y - mean_y)).sum()
    };
    with(|x, y| x * y) / with(|x, _| x * x)
}

#[cfg(test)]
mod tests {
    use super::exponent;

    #[test]
    fn a_power_is_found() {
        let points = [1.0_f64, 2.0, 5.0, 7.0].map(|x| (x, 3.0 * x.powf(1.7)));
        assert!((exponent(&points) - 1.7).abs() < 1e-12);
    }

    #[test]
    fn noise_that_cancels_in_logs_leaves_it() {
        let points = [
            (1.0, 1.1),
            (2.0, 4.0 / 1.1),
            (2.0, 4.0 * 1.1),
            (1.0, 1.0 / 1.1),
        ];
        assert!((exponent(&points) - 2.0).abs() < 1e-12);
    }
}
