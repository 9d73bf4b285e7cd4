//! Checks that a given W~ was made from this W. Both are at hand; a file of another model, or one
//! whose rows are read in the wrong order, does not resemble W at all.
//!
//! Two figures are of the whole tensor (relative error and correlation), and one is of its rows: if
//! only some rows are in another order, those of half of the heads for instance, the whole still
//! resembles W. No comparison tells a fine-tuned model from its origin where the two differ by less
//! than quantization does. Therefore a tensor that differs more from W than its type explains is
//! told.

use core::fmt;

use serde::Serialize;

/// A tensor with a lower correlation than this is no W~ of its W, ...
const LEAST_CORRELATION: f64 = 0.5;
/// ... nor is one with a larger relative error. With one and a half bits the error is .82 and the
/// correlation .67.
pub(crate) const MOST_ERROR: f64 = 1.0;
/// With a relative error below this, W~ belongs to W whatever the correlation: equal numbers have
/// no correlation.
const NEAR: f64 = 0.5;
/// A row is another row if the cosine between its numbers and W's is smaller than this, ...
const LEAST_OF_A_ROW: f64 = 0.25;
/// ... and such rows may hold at most this share of ||W||^2, since dead rows become zeros.
const MOST_LOST: f64 = 0.01;
/// A correlation below this counts as none.
const NONE: f64 = 0.1;

/// How much W~ of a layer differs from W.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct DecodeCheck {
    /// ||W - W~|| / ||W||, in the Frobenius norm.
    pub(crate) relative_error: f64,
    /// Pearson's correlation of their numbers; 0 where one of them is constant and they differ.
    pub(crate) correlation: f64,
    /// The share of ||W||^2 in rows that do not resemble theirs in W.
    #[serde(skip)]
    pub(crate) lost: f64,
    /// The first of these rows.
    #[serde(skip)]
    pub(crate) first_lost: Option<usize>,
}

/// Sums over the numbers of W and W~, from which the check is computed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DecodeSums {
    count: f64,
    w: f64,
    q: f64,
    ww: f64,
    qq: f64,
    wq: f64,
    dd: f64,
    lost: f64,
    first_lost: Option<usize>,
}

impl DecodeSums {
    /// Adds a row of W and of W~ (a column of the m x n matrices).
    pub(crate) fn add_row(&mut self, row: usize, original: &[f32], quantized: &[f32]) {
        let mut own = Self::default();
        for (w, q) in original.iter().zip(quantized) {
            let (w, q) = (f64::from(*w), f64::from(*q));
            own.count += 1.0;
            own.w += w;
            own.q += q;
            own.ww += w * w;
            own.qq += q * q;
            own.wq += w * q;
            own.dd += (w - q) * (w - q);
        }
        if own.ww > 0.0 && own.wq < LEAST_OF_A_ROW * (own.ww * own.qq).sqrt().max(f64::MIN_POSITIVE)
        {
            own.lost = own.ww;
            own.first_lost = Some(row);
        }
        self.merge(&own);
    }

    /// Adds the sums of later rows, which were formed elsewhere.
    pub(crate) fn merge(&mut self, of: &Self) {
        self.count += of.count;
        self.w += of.w;
        self.q += of.q;
        self.ww += of.ww;
        self.qq += of.qq;
        self.wq += of.wq;
        self.dd += of.dd;
        self.lost += of.lost;
        self.first_lost = self.first_lost.or(of.first_lost);
    }

    /// The check that follows from the sums.
    #[must_use]
    pub(crate) fn check(&self) -> DecodeCheck {
        if self.dd == 0.0 {
            return DecodeCheck {
                relative_error: 0.0,
                correlation: 1.0,
                lost: 0.0,
                first_lost: None,
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
            lost: if self.ww > 0.0 {
                self.lost / self.ww
            } else {
                0.0
            },
            first_lost: self.first_lost,
        }
    }
}

impl DecodeCheck {
    /// Whether this can be a W~ of this W.
    #[must_use]
    pub(crate) fn holds(&self) -> bool {
        let near = self.relative_error <= NEAR
            || (self.correlation >= LEAST_CORRELATION && self.relative_error <= MOST_ERROR);
        near && self.lost <= MOST_LOST
    }

    /// The likely reason where it cannot.
    #[must_use]
    pub(crate) fn likely(&self) -> String {
        if let Some(row) = self.first_lost.filter(|_| self.lost < 1.0 - MOST_LOST) {
            return format!(
                "rows with {:.0} % of the weight's square sum, row {row} first, do not resemble the \
                 checkpoint's rows: they are in another order, or of another model",
                100.0 * self.lost
            );
        }
        let said = if self.correlation >= LEAST_CORRELATION {
            "its numbers are those of the checkpoint times a factor, or it has too few bits to be \
             of use"
        } else if self.correlation.abs() < NONE {
            "it is of another model, or its rows are in another order"
        } else {
            "it is of another version of the model, or only partly what it is called"
        };
        said.to_owned()
    }
}

impl fmt::Display for DecodeCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            relative_error,
            correlation,
            ..
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

    /// Checks weights with rows of three numbers.
    fn check(original: &[f32], quantized: &[f32]) -> DecodeCheck {
        let mut sums = DecodeSums::default();
        let rows = original.chunks(3).zip(quantized.chunks(3)).enumerate();
        for (row, (w, q)) in rows {
            // The sums of each row are formed elsewhere.
            let mut own = DecodeSums::default();
            own.add_row(row, w, q);
            sums.merge(&own);
        }
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

        let turned = check(&w, &w.map(|w| -w));
        assert!((turned.relative_error - 2.0).abs() < 1e-12);
        assert!((turned.correlation + 1.0).abs() < 1e-12);
        assert!(!turned.holds() && turned.likely().contains("another version"));

        let other = check(&w, &[0.0, 0.0, 0.0, 0.0, 8.0, 0.0]);
        assert!(!other.holds(), "{other:?}");
    }

    /// The whole still resembles W, because nine rows of ten are right.
    #[test]
    fn some_rows_of_another_order_are_enough() {
        let w: Vec<f32> = (0..30).map(|i| (i as f32 * 1.7).sin()).collect();
        let mut exchanged = w.clone();
        // These numbers have nothing in common with those that stood there.
        exchanged[12..15].copy_from_slice(&[-w[13], w[12], 0.0]);
        let found = check(&w, &exchanged);
        assert!(found.correlation > 0.5 && found.relative_error < 1.0);
        assert!(
            !found.holds() && found.likely().contains("row 4 "),
            "{found:?}"
        );
        // A dead row may become zeros.
        let mut dead = w.clone();
        dead[12..15].copy_from_slice(&[1e-4, -1e-4, 1e-4]);
        let mut zeros = dead.clone();
        zeros[12..15].fill(0.0);
        assert!(check(&dead, &zeros).holds());
    }

    #[test]
    fn constants_have_no_correlation_and_nothing_is_divided_by_zero() {
        let zeros = check(&[0.0; 6], &[0.0; 6]);
        assert_eq!((zeros.relative_error, zeros.correlation), (0.0, 1.0));
        let muted = check(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[0.0; 6]);
        assert_eq!((muted.relative_error, muted.correlation), (1.0, 0.0));
        assert!(!muted.holds());
        let risen = check(&[0.0; 6], &[1.0; 6]);
        assert!(risen.relative_error.is_finite() && !risen.holds());
        let constant = check(&[1.0; 6], &[1.001; 6]);
        assert!(constant.correlation.abs() < 1.0 && constant.holds());
    }
}
