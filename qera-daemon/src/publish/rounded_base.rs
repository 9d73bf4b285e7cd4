//! The part of a base's record about a W~ that was rounded under R. Such a W~ depends on rows, rank
//! and settings, so that two of the same checkpoint and grid differ, and an adapter belongs on one
//! of them.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::settings::rounding::{RoundingSettings, RoundingShrinkage};
use crate::weights::Weights;

/// Settings of the rounding that decide the bytes of W~. When W~ was made, and whether again,
/// decides which rows it knows; that is in W~'s own record and not here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RoundingChoice {
    /// `feedback` or `projected`.
    pub(crate) name: String,
    /// `rule`, `auto` or a number.
    pub(crate) shrinkage: serde_json::Value,
    /// The base share b, where W~ is rounded for an adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) base_share: Option<f64>,
}

impl RoundingChoice {
    /// The settings; `None` for nearest rounding, whose fingerprints stay those of versions that
    /// knew nothing else.
    #[must_use]
    pub(crate) fn new(settings: &RoundingSettings) -> Option<Self> {
        let rounding = settings.rounding;
        rounding.uses_rows().then(|| Self {
            name: rounding.name().into(),
            shrinkage: match settings.shrinkage {
                RoundingShrinkage::Rule => "rule".into(),
                RoundingShrinkage::Auto => "auto".into(),
                RoundingShrinkage::Fixed(a) => a.into(),
            },
            base_share: rounding.knows_the_adapter().then_some(settings.base_share),
        })
    }
}

impl fmt::Display for RoundingChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if let Some(share) = self.base_share {
            write!(f, ", --base-share {share}")?;
        }
        match self.shrinkage.as_str() {
            Some(how) => write!(f, ", shrinkage {how}"),
            None => write!(f, ", shrinkage {}", self.shrinkage),
        }
    }
}

/// A W~ that was rounded under R, or will be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RoundedBase {
    /// The settings of the rounding.
    pub(crate) settings: RoundingChoice,
    /// The rank that each layer was rounded for; 0 where W~ was rounded for no adapter.
    ranks: Vec<usize>,
    /// BLAKE3 of the whole W~; `None` while it is not made.
    pub(crate) digest: Option<String>,
}

impl RoundedBase {
    /// The W~ that this run makes or has made; `None` for nearest rounding.
    #[must_use]
    pub(crate) fn new(weights: &Weights, settings: &RoundingSettings) -> Option<Self> {
        let choice = RoundingChoice::new(settings)?;
        let digest = weights.frozen_digest();
        let rank = |layer: usize| match &digest {
            Some(_) => weights.rounding_of(layer).map_or(0, |of| of.rank),
            None if settings.rounding.knows_the_adapter() => weights.layers()[layer].rank,
            None => 0,
        };
        let ranks = (0..weights.layers().len()).map(rank).collect();
        Some(Self {
            settings: choice,
            ranks,
            digest,
        })
    }

    /// Why the W~ that was found cannot be this one; `None` where it is, or where only making W~
    /// will tell.
    #[must_use]
    pub(crate) fn differs(&self, found: &Self, layers: &[String]) -> Option<String> {
        if self.digest.is_some() && self.digest == found.digest {
            return None;
        }
        let (own, other) = (&self.settings, &found.settings);
        let settings =
            (own != other).then(|| format!("was rounded by {other}, this run rounds by {own}"));
        settings
            .or_else(|| self.ranks_differ(found, layers))
            .or_else(|| {
                let (own, found) = (self.digest.as_ref()?, found.digest.as_ref()?);
                Some(format!("holds another W~ ({found}, this run's is {own})"))
            })
    }

    /// A rank of 0 may mean that no row had come; in this run rows may come.
    fn ranks_differ(&self, found: &Self, layers: &[String]) -> Option<String> {
        let ranks = found.ranks.iter().zip(&self.ranks).zip(layers);
        let mut both = ranks.filter(|((found, own), _)| **found > 0 && **own > 0);
        let ((rank, own), layer) = both.find(|((found, own), _)| found != own)?;
        let made = if self.digest.is_some() {
            "was"
        } else {
            "will be"
        };
        Some(format!(
            "was rounded for rank {rank} ({layer}), this run's W~ {made} rounded for rank {own}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(ranks: &[usize], digest: Option<&str>) -> RoundedBase {
        RoundedBase {
            settings: RoundingChoice {
                name: "projected".into(),
                shrinkage: "rule".into(),
                base_share: Some(0.01),
            },
            ranks: ranks.to_vec(),
            digest: digest.map(str::to_owned),
        }
    }

    #[test]
    fn another_w_is_told_by_what_differs() {
        let layers = ["h.0", "h.1"].map(str::to_owned);
        let found = base(&[0, 32], Some("blake3:a"));
        let said = |own: &RoundedBase| own.differs(&found, &layers);
        // Equal ones, and one that may still become equal.
        assert_eq!(said(&base(&[0, 8], Some("blake3:a"))), None);
        assert_eq!(said(&base(&[32, 32], None)), None);
        let other = said(&base(&[32, 32], Some("blake3:b"))).unwrap();
        assert_eq!(other, "holds another W~ (blake3:a, this run's is blake3:b)");
        let lower = said(&base(&[8, 8], None)).unwrap();
        assert_eq!(
            lower,
            "was rounded for rank 32 (h.1), this run's W~ will be rounded for rank 8"
        );
        let mut share = base(&[32, 32], Some("blake3:b"));
        share.settings.base_share = Some(0.0);
        assert_eq!(
            said(&share).unwrap(),
            "was rounded by projected, --base-share 0.01, shrinkage rule, this run rounds by projected, --base-share 0, shrinkage rule"
        );
        let text = serde_json::to_vec(&found).unwrap();
        assert_eq!(found, serde_json::from_slice(&text).unwrap());
    }
}
