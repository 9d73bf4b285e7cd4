//! The methods of the paper's comparison, by the names they have on the command line.

use core::fmt;

/// The matrix S that a method puts in the place of R, in G = E^T S E.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatisticKind {
    /// S is R itself, shrunk toward its diagonal or not.
    Autocorrelation,
    /// S is the diagonal of R, `E[x_i^2]`.
    SecondMoment,
    /// S is the squared maximum, over batches, of the mean magnitude.
    BatchMaxMeanAbs,
    /// S is the squared mean magnitude.
    MeanAbs,
    /// S is the identity.
    Identity,
}

/// The way in which the low-rank term is found.
///
/// ```
/// use qera_core::reconstruct::{Method, StatisticKind};
/// let with_r = Method::ALL.into_iter().filter(|method| method.needs_r());
/// assert!(with_r.eq([Method::Exact]));
/// assert_eq!(Method::Lqer.statistic_kind(), StatisticKind::BatchMaxMeanAbs);
/// assert!(!Method::ZeroQuantV2.uses_rows() && !Method::WeightOnly.corrects());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// QERA-exact, theorem 1: the whole autocorrelation.
    Exact,
    /// QERA-approx, theorem 2: the second moments `E[x_i^2]`, its diagonal.
    Approx,
    /// LQER as its authors' program computes it: the scale is the maximum over batches of the mean
    /// magnitude.
    Lqer,
    /// LQER as the paper states it (algorithm 2): the scale is the plain mean magnitude.
    LqerMean,
    /// ZeroQuant-V2: the quantization error itself, blind to the inputs.
    ZeroQuantV2,
    /// No correction: the quantized weight alone.
    WeightOnly,
}

impl Method {
    /// All methods, the best first.
    pub const ALL: [Self; 6] = [
        Self::Exact,
        Self::Approx,
        Self::Lqer,
        Self::LqerMean,
        Self::ZeroQuantV2,
        Self::WeightOnly,
    ];

    /// The name of the method on command lines and in manifests.
    ///
    /// ```
    /// use qera_core::reconstruct::Method;
    /// assert_eq!(Method::ZeroQuantV2.name(), "zeroquant-v2");
    /// ```
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Approx => "approx",
            Self::Lqer => "lqer",
            Self::LqerMean => "lqer-mean",
            Self::ZeroQuantV2 => "zeroquant-v2",
            Self::WeightOnly => "w-only",
        }
    }

    /// The matrix that the method puts in the place of R.
    #[must_use]
    pub const fn statistic_kind(self) -> StatisticKind {
        match self {
            Self::Exact => StatisticKind::Autocorrelation,
            Self::Approx => StatisticKind::SecondMoment,
            Self::Lqer => StatisticKind::BatchMaxMeanAbs,
            Self::LqerMean => StatisticKind::MeanAbs,
            Self::ZeroQuantV2 | Self::WeightOnly => StatisticKind::Identity,
        }
    }

    /// Whether the method computes a low-rank term at all.
    #[must_use]
    pub const fn corrects(self) -> bool {
        !matches!(self, Self::WeightOnly)
    }

    /// Whether the method is solved from the whole of R.
    #[must_use]
    pub const fn needs_r(self) -> bool {
        matches!(self.statistic_kind(), StatisticKind::Autocorrelation)
    }

    /// The method that is solved from the second moments `E[x_i^2]`, for layers of which nothing
    /// else was kept.
    ///
    /// ```
    /// use qera_core::reconstruct::Method;
    /// assert!(Method::of_mean_squares().is_of_mean_squares());
    /// ```
    #[must_use]
    pub const fn of_mean_squares() -> Self {
        Self::Approx
    }

    /// Whether the method needs the second moments `E[x_i^2]` and nothing more.
    #[must_use]
    pub const fn is_of_mean_squares(self) -> bool {
        matches!(self.statistic_kind(), StatisticKind::SecondMoment)
    }

    /// Whether the method's statistic is the mean magnitude of each channel.
    ///
    /// ```
    /// use qera_core::reconstruct::Method;
    /// assert!(Method::LqerMean.needs_mean_abs() && !Method::Lqer.needs_mean_abs());
    /// ```
    #[must_use]
    pub const fn needs_mean_abs(self) -> bool {
        matches!(self.statistic_kind(), StatisticKind::MeanAbs)
    }

    /// Whether the method's statistic is the maximum, over batches, of the mean magnitude.
    ///
    /// ```
    /// use qera_core::reconstruct::Method;
    /// assert!(Method::Lqer.needs_batch_max() && !Method::Exact.needs_batch_max());
    /// ```
    #[must_use]
    pub const fn needs_batch_max(self) -> bool {
        matches!(self.statistic_kind(), StatisticKind::BatchMaxMeanAbs)
    }

    /// Whether the method depends on the inputs. If not, more rows change nothing.
    #[must_use]
    pub const fn uses_rows(self) -> bool {
        !matches!(self.statistic_kind(), StatisticKind::Identity)
    }

    /// Whether the method shrinks R toward its diagonal, `R_a = (1 - a) R + a diag(R)`.
    ///
    /// ```
    /// use qera_core::reconstruct::Method;
    /// assert!(Method::Exact.shrinks() && !Method::Approx.shrinks());
    /// ```
    #[must_use]
    pub const fn shrinks(self) -> bool {
        matches!(self.statistic_kind(), StatisticKind::Autocorrelation)
    }

    /// Whether the method's statistic can be computed with some of the rows left out. A maximum
    /// over batches cannot.
    ///
    /// ```
    /// use qera_core::reconstruct::Method;
    /// assert!(Method::LqerMean.can_leave_out() && !Method::Lqer.can_leave_out());
    /// ```
    #[must_use]
    pub const fn can_leave_out(self) -> bool {
        !matches!(self.statistic_kind(), StatisticKind::BatchMaxMeanAbs)
    }

    /// Whether the method's eigenvalues are in the unit of f = tr(R P P^T), so that the distance of
    /// a solve from its optimum is a share of f.
    ///
    /// ```
    /// use qera_core::reconstruct::Method;
    /// assert!(Method::Approx.gap_is_in_f() && !Method::ZeroQuantV2.gap_is_in_f());
    /// ```
    #[must_use]
    pub const fn gap_is_in_f(self) -> bool {
        matches!(
            self.statistic_kind(),
            StatisticKind::Autocorrelation | StatisticKind::SecondMoment
        )
    }

    /// The method with this name, spelled exactly as [`name`](Self::name) writes it.
    ///
    /// ```
    /// use qera_core::reconstruct::Method;
    /// assert_eq!(Method::parse("lqer-mean"), Some(Method::LqerMean));
    /// assert_eq!(Method::parse("Exact"), None);
    /// ```
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_needs_and_shrinks_r() {
        for method in Method::ALL {
            assert_eq!(method.needs_r(), method == Method::Exact);
            assert_eq!(method.shrinks(), method == Method::Exact);
            assert_eq!(method.can_leave_out(), method != Method::Lqer);
            assert_eq!(method.corrects(), method != Method::WeightOnly);
            assert_eq!(
                method.is_of_mean_squares(),
                method == Method::of_mean_squares()
            );
        }
        assert!(!Method::ZeroQuantV2.uses_rows() && Method::LqerMean.uses_rows());
        assert!(Method::Approx.gap_is_in_f() && !Method::LqerMean.gap_is_in_f());
    }

    #[test]
    fn every_name_parses_back() {
        for method in Method::ALL {
            assert_eq!(Method::parse(method.name()), Some(method));
        }
        assert_eq!(Method::parse(""), None);
    }
}
