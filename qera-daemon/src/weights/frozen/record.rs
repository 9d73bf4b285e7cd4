//! The record of a rounded W~: how it was made, from which rows, and its errors.

use serde::{Deserialize, Serialize};

use crate::settings::rounding::{Rounding, RoundingSettings, RoundingShrinkage};

/// Block numbers from here on belong to blocks that were cut for a single solve, and are cut
/// differently for the next.
pub(crate) const CUT_FOR_ONE_SOLVE: u64 = 1 << 62;

/// How W~ of a layer was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RoundingRecord {
    /// The rounding. It is nearest for a layer that had too few rows when the base was written.
    pub(crate) rounding: Rounding,
    /// Rank of the adapter that W~ was rounded for; 0 where it was rounded for none.
    pub(crate) rank: usize,
    /// The shrinkage a that was used.
    pub(crate) shrinkage: f64,
    /// The shrinkage that was asked for: `rule`, `auto` or a number.
    pub(crate) shrinkage_asked: String,
    /// The base share b, where W~ was rounded for an adapter.
    pub(crate) base_share: Option<f64>,
    /// The damping lambda, relative to the mean of diag(R_a).
    pub(crate) damping: f64,
    /// The grid with everything that decides its levels, as `mxint3, block_size 32`.
    pub(crate) grid: String,
    /// How many neighbours along in_features share their levels.
    pub(crate) block_size: usize,
    /// Rows that R held.
    pub(crate) rows: u64,
    /// Number of the last shard in R.
    pub(crate) journal_position: u64,
    /// Numbers of the blocks that were left out of R, on which W~ may be scored.
    pub(crate) left_out: Vec<u64>,
    /// Number of the first block that came later.
    pub(crate) blocks_seen: u64,
    /// The errors of W~; `None` without rows.
    pub(crate) measured: Option<MeasuredRounding>,
    /// BLAKE3 of codes and scales.
    pub(crate) digest: String,
}

/// f = tr(R P P^T) relative to tr(R W W^T), on the rows that R held.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct MeasuredRounding {
    /// The error of this W~ without its adapter.
    pub(crate) error_alone: f64,
    /// The error of nearest rounding without an adapter.
    pub(crate) error_nearest: f64,
    /// The error of this W~ with its adapter.
    pub(crate) error_with: f64,
}

/// What a run expects of an existing W~.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AskedRounding<'a> {
    /// The rounding that the run asks for.
    pub(crate) settings: &'a RoundingSettings,
    /// The grid.
    pub(crate) grid: &'a str,
    /// The layer's rank.
    pub(crate) rank: usize,
}

/// Why an existing W~ does not suit a run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Unfit {
    /// An option was different when it was made.
    #[error("was made with {option} {found}, this run uses {asked}")]
    Option {
        /// The option.
        option: &'static str,
        /// The option's value then.
        found: String,
        /// The option's value in this run.
        asked: String,
    },
    /// W~ relies on a higher rank than the adapter will have.
    #[error(
        "was rounded for rank {found}, this run uses {asked}: a lower rank leaves more error than nearest rounding would; say --lower-rank to take it all the same"
    )]
    LowerRank {
        /// The rank that W~ was rounded for.
        found: usize,
        /// The layer's rank in this run.
        asked: usize,
    },
}

impl RoundingRecord {
    /// Whether the R that W~ was rounded under held rows of this block.
    #[must_use]
    pub(crate) fn has_seen(&self, block: u64) -> bool {
        let later = self.blocks_seen <= block && block < CUT_FOR_ONE_SOLVE;
        self.rounding.uses_rows() && !later && !self.left_out.contains(&block)
    }

    /// Why this W~ does not suit a run that asks for that; `None` where it does.
    #[must_use]
    pub(crate) fn unfit(&self, asked: &AskedRounding<'_>) -> Option<Unfit> {
        let differs = |option, found: &str, asked: &str| {
            (found != asked).then(|| Unfit::Option {
                option,
                found: found.to_owned(),
                asked: asked.to_owned(),
            })
        };
        let grid = differs("--quantizer", &self.grid, asked.grid);
        if !self.rounding.uses_rows() {
            return grid;
        }
        let of = asked.settings;
        let share = |b: Option<f64>| b.map_or_else(|| "none".into(), |b| b.to_string());
        let own_share = of.rounding.knows_the_adapter().then_some(of.base_share);
        grid.or_else(|| differs("--rounding", self.rounding.name(), of.rounding.name()))
            .or_else(|| {
                let own = asked_shrinkage(of.shrinkage);
                differs("--rounding-shrinkage", &self.shrinkage_asked, &own)
            })
            .or_else(|| differs("--base-share", &share(self.base_share), &share(own_share)))
            .or_else(|| {
                let lower = asked.rank < self.rank && !of.lower_rank;
                lower.then_some(Unfit::LowerRank {
                    found: self.rank,
                    asked: asked.rank,
                })
            })
    }
}

/// The shrinkage that is asked for, in words.
#[must_use]
pub(crate) fn asked_shrinkage(shrinkage: RoundingShrinkage) -> String {
    match shrinkage {
        RoundingShrinkage::Rule => "rule".into(),
        RoundingShrinkage::Auto => "auto".into(),
        RoundingShrinkage::Fixed(a) => a.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> RoundingRecord {
        RoundingRecord {
            rounding: Rounding::Projected,
            rank: 8,
            shrinkage: 0.4,
            shrinkage_asked: "rule".into(),
            base_share: Some(0.01),
            damping: 0.01,
            grid: "mxint3/32".into(),
            block_size: 32,
            rows: 100,
            journal_position: 3,
            left_out: vec![1, CUT_FOR_ONE_SOLVE + 3],
            blocks_seen: 4,
            measured: None,
            digest: String::new(),
        }
    }

    #[test]
    fn what_was_left_out_or_came_later_was_not_seen() {
        let record = record();
        let seen = |block| record.has_seen(block);
        assert_eq!([0, 1, 3, 4, 9].map(seen), [true, false, true, false, false]);
        // Blocks of a lone shard are cut anew for every solve.
        assert!(seen(CUT_FOR_ONE_SOLVE + 2) && !seen(CUT_FOR_ONE_SOLVE + 3));
        let nearest = RoundingRecord {
            rounding: Rounding::Nearest,
            ..record
        };
        assert!(!nearest.has_seen(0) && !nearest.has_seen(CUT_FOR_ONE_SOLVE));
    }

    #[test]
    fn what_changes_bytes_is_refused_with_both_values() {
        let settings = |change: fn(&mut RoundingSettings)| {
            let mut of = RoundingSettings {
                rounding: Rounding::Projected,
                shrinkage: RoundingShrinkage::Rule,
                base_share: 0.01,
                round_after: Some(5),
                round_again: false,
                lower_rank: false,
            };
            change(&mut of);
            of
        };
        let unfit = |grid: &str, rank, of: RoundingSettings| {
            let asked = AskedRounding {
                settings: &of,
                grid,
                rank,
            };
            record().unfit(&asked).map(|unfit| unfit.to_string())
        };
        let same = || settings(|_| ());
        assert_eq!(unfit("mxint3/32", 8, same()), None);
        assert_eq!(unfit("mxint3/32", 9, same()), None, "a higher rank");
        assert_eq!(
            unfit("mxint3/32", 8, settings(|of| of.round_after = None)),
            None
        );
        assert_eq!(
            unfit("mxint3/32", 7, settings(|of| of.lower_rank = true)),
            None
        );
        for (said, [found, own], refused) in [
            (
                "--quantizer",
                ["mxint3/32", "mxint4/32"],
                unfit("mxint4/32", 8, same()),
            ),
            ("rank", ["8", "7"], unfit("mxint3/32", 7, same())),
            (
                "--rounding ",
                ["projected", "feedback"],
                unfit(
                    "mxint3/32",
                    8,
                    settings(|of| of.rounding = Rounding::Feedback),
                ),
            ),
            (
                "--rounding-shrinkage",
                ["rule", "0.5"],
                unfit(
                    "mxint3/32",
                    8,
                    settings(|of| of.shrinkage = RoundingShrinkage::Fixed(0.5)),
                ),
            ),
            (
                "--base-share",
                ["0.01", "0.2"],
                unfit("mxint3/32", 8, settings(|of| of.base_share = 0.2)),
            ),
        ] {
            let refused = refused.unwrap_or_default();
            let has = [said, found, own]
                .iter()
                .all(|words| refused.contains(words));
            assert!(has, "{said}: {refused}");
        }
    }
}
