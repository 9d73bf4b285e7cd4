//! Whether a W~ that was given is one of this W: both are at hand, and a file that is another
//! model's, or was read in another order than it was written in, resembles it in nothing.

use core::fmt;

use serde::Serialize;

/// Below this correlation a tensor is no W~ of its W, ...
const LEAST_CORRELATION: f64 = 0.5;
/// ... nor above this relative error. One and a half bits leave .82 and a correlation of .67.
const MOST_ERROR: f64 = 1.0;
/// A correlation that is none.
const NONE: f64 = 0.1;

/// How far W~ of a layer is from W.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct DecodeCheck {
    /// ||W - W~|| / ||W||, in the Frobenius norm.
    pub(crate) relative_error: f64,
    /// Pearson's correlation of their numbers; 0 where one of them is constant and they differ.
    pub(crate) correlation: f64,
}

/// Sums over the numbers of W and W~, of which the check is made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DecodeSums {
    count: f64,
    w: f64,
    q: f64,
    ww: f64,
    qq: f64,
    wq: f64,
    dd: f64,
}

impl DecodeSums {
    /// Adds some numbers of both.
    pub(crate) fn add(&mut self, original: &[f32], quantized: &[f32]) {
        for (w, q) in original.iter().zip(quantized) {
            let (w, q) = (f64::from(*w), f64::from(*q));
            self.count += 1.0;
            self.w += w;
            self.q += q;
            self.ww += w * w;
            self.qq += q * q;
            self.wq += w * q;
            self.dd += (w - q) * (w - q);
        }
    }

    /// Adds what was summed elsewhere.
    pub(crate) fn merge(&mut self, of: &Self) {
        self.count += of.count;
        self.w += of.w;
        self.q += of.q;
        self.ww += of.ww;
        self.qq += of.qq;
        self.wq += of.wq;
        self.dd += of.dd;
    }

    /// The check.
    #[must_use]
    pub(crate) fn check(&self) -> DecodeCheck {
        if self.dd == 0.0 {
            return DecodeCheck {
                relative_error: 0.0,
                correlation: 1.0,
            };
        }
        let covariance = self.wq - self.w * self.q / self.count;
        let spread = |squares: f64, sum: f64| (squares - sum * sum / self.count).max(0.0);
        let spreads = (spread(self.ww, self.w) * spread(self.qq, self.q)).sqrt();
        DecodeCheck {
            relative_error: (self.dd / self.ww).sqrt().min(f64::MAX),
            correlation: if spreads > 0.0 {
                (covariance / spreads).clamp(-1.0, 1.0)
            } else {
                0.0
            },
        }
    }
}

impl DecodeCheck {
    /// Whether it can be a W~ of this W.
    #[must_use]
    pub(crate) fn holds(&self) -> bool {
        self.correlation >= LEAST_CORRELATION && self.relative_error <= MOST_ERROR
    }

    /// What is likely where it does not hold.
    #[must_use]
    pub(crate) fn likely(&self) -> &'static str {
        if self.correlation >= LEAST_CORRELATION {
            "its numbers are those of the checkpoint times a factor, or it has too few bits to be \
             of use"
        } else if self.correlation.abs() < NONE {
            "it is of another model, or its rows are in another order"
        } else {
            "it is of another version of the model, or only partly what it is called"
        }
    }
}

impl fmt::Display for DecodeCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            relative_error,
            correlation,
        } = self;
        write!(
            f,
            "relative error {relative_error:.3}, correlation {correlation:.3}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(original: &[f32], quantized: &[f32]) -> DecodeCheck {
        let mut sums = DecodeSums::default();
        // In two pieces, one of them summed elsewhere.
        let mut other = DecodeSums::default();
        sums.add(&original[..2], &quantized[..2]);
        other.add(&original[2..], &quantized[2..]);
        sums.merge(&other);
        sums.check()
    }

    #[test]
    fn equal_scaled_shifted_and_other_numbers_are_told_apart() {
        let w = [1.0, -2.0, 3.0, -4.0, 0.5, 2.0];
        let same = check(&w, &w);
        assert_eq!((same.relative_error, same.correlation), (0.0, 1.0));
        assert!(same.holds());

        let scaled = check(&w, &w.map(|w| 3.0 * w));
        assert!((scaled.relative_error - 2.0).abs() < 1e-12);
        assert!((scaled.correlation - 1.0).abs() < 1e-12);
        assert!(!scaled.holds() && scaled.likely().contains("factor"));

        // By hand: sum of squares 34.25, of differences 12 * 34.25 / 3.
        let turned = check(&w, &w.map(|w| -w));
        assert!((turned.relative_error - 2.0).abs() < 1e-12);
        assert!((turned.correlation + 1.0).abs() < 1e-12);
        assert!(!turned.holds() && turned.likely().contains("another version"));

        let other = check(&w, &[0.0, 0.0, 0.0, 0.0, 8.0, 0.0]);
        assert!(!other.holds() && other.likely().contains("another model"));
    }

    #[test]
    fn constants_have_no_correlation_and_nothing_is_divided_by_zero() {
        let zeros = check(&[0.0; 4], &[0.0; 4]);
        assert_eq!((zeros.relative_error, zeros.correlation), (0.0, 1.0));
        let muted = check(&[1.0, 2.0, 3.0, 4.0], &[0.0; 4]);
        assert_eq!((muted.relative_error, muted.correlation), (1.0, 0.0));
        assert!(!muted.holds());
        let risen = check(&[0.0; 4], &[1.0; 4]);
        assert!(risen.relative_error.is_finite() && !risen.holds());
    }
}
