//! The methods of the paper's comparison, by the names they have on the command line.

use core::fmt;

/// How the low-rank term is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// QERA-exact, theorem 1: the whole autocorrelation.
    Exact,
    /// QERA-approx, theorem 2: the second moments `E[x_i^2]`, its diagonal.
    Approx,
    /// LQER as its authors' program computes it: the scale is the maximum over batches of the mean magnitude.
    Lqer,
    /// LQER as the paper states it (algorithm 2): the scale is the plain mean magnitude.
    LqerMean,
    /// ZeroQuant-V2: the quantization error itself, blind to the inputs.
    ZeroQuantV2,
    /// No correction: the quantized weight alone.
    WeightOnly,
}

impl Method {
    /// Every method, best first.
    pub const ALL: [Self; 6] = [
        Self::Exact,
        Self::Approx,
        Self::Lqer,
        Self::LqerMean,
        Self::ZeroQuantV2,
        Self::WeightOnly,
    ];

    /// The name used on command lines and in manifests.
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

    /// The method of this name, exactly as [`name`](Self::name) writes it.
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
    fn every_name_parses_back() {
        for method in Method::ALL {
            assert_eq!(Method::parse(method.name()), Some(method));
        }
        assert_eq!(Method::parse(""), None);
    }
}
