//! A few measurements of one quantity: the median and the two ends.

/// Measurements, in order of size.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Of at least one measurement; of none, a single NaN.
    #[must_use]
    pub fn new(mut values: Vec<f64>) -> Self {
        if values.is_empty() {
            values.push(f64::NAN);
        }
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The middle one, or the mean of the two in the middle.
    #[must_use]
    pub fn median(&self) -> f64 {
        let count = self.0.len();
        f64::midpoint(self.0[(count - 1) / 2], self.0[count / 2])
    }

    /// The smallest.
    #[must_use]
    pub fn least(&self) -> f64 {
        self.0[0]
    }

    /// The largest.
    #[must_use]
    pub fn most(&self) -> f64 {
        self.0[self.0.len() - 1]
    }

    /// Median and ends, with this many digits after the point.
    #[must_use]
    pub fn text(&self, digits: usize) -> String {
        let (median, least, most) = (self.median(), self.least(), self.most());
        format!("{median:.digits$} ({least:.digits$}-{most:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::Samples;

    #[test]
    fn the_median_is_in_the_middle() {
        let odd = Samples::new(vec![3.0, 1.0, 2.0]);
        assert_eq!(odd.text(1), "2.0 (1.0-3.0)");
        let even = Samples::new(vec![4.0, 1.0, 2.0, 3.0]);
        assert_eq!(even.text(2), "2.50 (1.00-4.00)");
    }
}
