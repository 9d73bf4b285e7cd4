//! What rounding is told: whether W~ knows the statistics and the adapter, and when it is made.

use serde::{Deserialize, Serialize};

use crate::error::Fatal;
use crate::settings::options::{Options, ROUNDINGS};
use crate::settings::parse::one_of;
use crate::settings::solve::SolveSettings;

/// Part of R_a beside R_perp, unless `--base-share` says another.
const BASE_SHARE: f64 = 0.01;
/// Rows that R holds at least when a layer is rounded, unless `--round-after` says another number,
/// and per input.
const LEAST_ROWS: u64 = 4096;
const LEAST_ROWS_AN_INPUT: u64 = 4;

/// `--rounding`: how W becomes W~.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Rounding {
    /// Each weight to the level that is nearest to it, blind to the inputs.
    Nearest,
    /// Under R_a: each input's errors are made good by the inputs that are rounded after it.
    Feedback,
    /// Under what the adapter of this rank leaves of R_a.
    Projected,
}

/// `--rounding-shrinkage`: the a of R_a = (1 - a) R + a diag(R) that rounding uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum RoundingShrinkage {
    /// 3 m / (3 m + N), of m in_features and N rows.
    Rule,
    /// Of half, one and two times the odds of the rule the one that is best on held-out blocks.
    Auto,
    /// Given.
    Fixed(f64),
}

/// How W~ is made, and when.
///
/// Without a checkpoint it says nothing: statistics are gathered as ever, and whoever solves them
/// rounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoundingSettings {
    /// How.
    pub(crate) rounding: Rounding,
    /// How far R is shrunk to its diagonal.
    pub(crate) shrinkage: RoundingShrinkage,
    /// b: how much W~ minds its error without the adapter, from 0 (not at all) to 1.
    pub(crate) base_share: f64,
    /// Rows that R holds at least.
    pub(crate) round_after: Option<u64>,
    /// Whether `solve` makes another W~ in place of the state's.
    pub(crate) round_again: bool,
    /// Whether a W~ that was rounded for a higher rank is taken.
    pub(crate) lower_rank: bool,
}

impl Rounding {
    /// The name that it has on the command line and in manifests.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Feedback => "feedback",
            Self::Projected => "projected",
        }
    }

    /// Whether W~ depends on the rows: then it is made once, kept, and written as the base.
    #[must_use]
    pub(crate) const fn uses_rows(self) -> bool {
        !matches!(self, Self::Nearest)
    }

    /// Whether W~ depends on the adapter's rank, and minds the base's own error as far as it is
    /// told to.
    #[must_use]
    pub(crate) const fn knows_the_adapter(self) -> bool {
        matches!(self, Self::Projected)
    }
}

impl RoundingSettings {
    /// Checks its options.
    ///
    /// # Errors
    /// [`Fatal::Usage`]; for an option that does nothing under this rounding as well.
    pub(crate) fn resolve(options: &Options, solve: &SolveSettings) -> Result<Self, Fatal> {
        let name = match options.quantized {
            // Nothing is rounded.
            Some(_) => Some(Rounding::Nearest.name()),
            None => options.rounding.as_deref(),
        };
        let rounding = match one_of("rounding", name, &ROUNDINGS)? {
            "feedback" => Rounding::Feedback,
            "projected" => Rounding::Projected,
            _ => Rounding::Nearest,
        };
        if rounding.uses_rows() && !solve.method.needs_r() {
            return Err(Fatal::Usage(format!(
                "--rounding {} --method {}: it rounds under R, which --method exact gathers",
                rounding.name(),
                solve.method
            )));
        }
        refuse_idle(options, rounding)?;
        Ok(Self {
            rounding,
            shrinkage: shrinkage(options.rounding_shrinkage.as_deref())?,
            base_share: base_share(options.base_share)?,
            round_after: round_after(options.round_after)?,
            round_again: options.round_again.unwrap_or_default(),
            lower_rank: options.lower_rank.unwrap_or_default(),
        })
    }

    /// Rows that R of so many inputs has to hold before its layers are rounded.
    #[must_use]
    pub(crate) fn round_after_rows(&self, in_features: usize) -> u64 {
        let of_inputs = LEAST_ROWS_AN_INPUT.saturating_mul(in_features as u64);
        self.round_after.unwrap_or(of_inputs.max(LEAST_ROWS))
    }

    /// Refuses what only `solve` can do.
    ///
    /// # Errors
    /// [`Fatal::Usage`].
    pub(crate) fn refuse_round_again(&self) -> Result<(), Fatal> {
        if self.round_again {
            return Err(Fatal::Usage(
                "--round-again: a run keeps the rounded weights of its state; only solve makes \
                 others, into another --out"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Refuses what only a run with solve points reads.
    ///
    /// # Errors
    /// [`Fatal::Usage`].
    pub(crate) fn refuse_round_after(&self, who: &str) -> Result<(), Fatal> {
        if self.round_after.is_some() {
            return Err(Fatal::Usage(format!(
                "--round-after: does nothing with {who}, which rounds from all rows that are \
                 there, however few"
            )));
        }
        Ok(())
    }
}

/// Refuses what somebody gave and nobody would read.
fn refuse_idle(options: &Options, rounding: Rounding) -> Result<(), Fatal> {
    let set = |switch: Option<bool>| switch.unwrap_or_default();
    let given = [
        ("rounding-shrinkage", options.rounding_shrinkage.is_some()),
        ("round-after", options.round_after.is_some()),
        ("round-again", set(options.round_again)),
        ("lower-rank", set(options.lower_rank)),
    ];
    let idle = given.into_iter().find(|(_, given)| *given);
    if let Some((option, _)) = idle
        && !rounding.uses_rows()
    {
        return Err(Fatal::Usage(format!(
            "--{option}: does nothing with --rounding {}, only with feedback and projected",
            rounding.name()
        )));
    }
    if options.base_share.is_some() && !rounding.knows_the_adapter() {
        return Err(Fatal::Usage(format!(
            "--base-share: does nothing with --rounding {}, only with projected",
            rounding.name()
        )));
    }
    Ok(())
}

fn shrinkage(text: Option<&str>) -> Result<RoundingShrinkage, Fatal> {
    let text = match text {
        None => return Ok(RoundingShrinkage::Rule),
        Some("auto") => return Ok(RoundingShrinkage::Auto),
        Some(text) => text,
    };
    match text.parse::<f64>() {
        Ok(a) if (0.0..=1.0).contains(&a) => Ok(RoundingShrinkage::Fixed(a)),
        _ => Err(Fatal::Usage(format!(
            "--rounding-shrinkage: '{text}' is neither auto nor a number from 0 to 1; without it \
             the numbers of rows and inputs decide"
        ))),
    }
}

fn base_share(given: Option<f64>) -> Result<f64, Fatal> {
    let share = given.unwrap_or(BASE_SHARE);
    if (0.0..=1.0).contains(&share) {
        return Ok(share);
    }
    Err(Fatal::Usage(format!(
        "--base-share: {share} is no number from 0 to 1"
    )))
}

fn round_after(given: Option<u64>) -> Result<Option<u64>, Fatal> {
    if given == Some(0) {
        return Err(Fatal::Usage(
            "--round-after: must be at least 1 row; rounding needs R".into(),
        ));
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    /// Of the text of a settings file.
    fn resolved(text: &str) -> RoundingSettings {
        Settings::from_toml(text).unwrap().rounding
    }

    #[test]
    fn what_is_not_given_is_as_documented() {
        let bare = Settings::from_toml("").unwrap();
        assert_eq!(bare.rounding.rounding, Rounding::Nearest);
        assert!(bare.publish.bases.is_empty());
        let projected = Settings::from_toml("rounding = \"projected\"").unwrap();
        let of = projected.rounding;
        assert_eq!(of.rounding, Rounding::Projected);
        assert_eq!(of.shrinkage, RoundingShrinkage::Rule);
        assert_eq!(of.base_share.to_bits(), 0.01_f64.to_bits());
        assert!(!of.round_again && !of.lower_rank);
        assert!(!projected.publish.bases.is_empty(), "W~ is nowhere else");
        assert_eq!(of.round_after_rows(576), 4096);
        assert_eq!(of.round_after_rows(1025), 4100);
    }

    #[test]
    fn what_is_given_is_taken() {
        let of = resolved(
            "rounding = \"projected\"\nrounding-shrinkage = 0.25\nbase-share = 0.0\nround-after = 7\nround-again = true\nlower-rank = true",
        );
        assert_eq!(of.shrinkage, RoundingShrinkage::Fixed(0.25));
        assert_eq!(of.base_share.to_bits(), 0);
        assert_eq!(of.round_after_rows(1025), 7);
        assert!(of.round_again && of.lower_rank);
        assert!(of.refuse_round_again().is_err());
        let refused = of.refuse_round_after("solve").unwrap_err().to_string();
        assert!(
            refused.contains("--round-after: does nothing with solve,"),
            "{refused}"
        );
        let of = resolved("rounding = \"feedback\"\nrounding-shrinkage = \"auto\"");
        assert_eq!(of.rounding, Rounding::Feedback);
        assert_eq!(of.shrinkage, RoundingShrinkage::Auto);
        assert!(of.refuse_round_again().is_ok() && of.refuse_round_after("solve").is_ok());
        let of = resolved("rounding = \"feedback\"\nrounding-shrinkage = 1");
        assert_eq!(of.shrinkage, RoundingShrinkage::Fixed(1.0));
    }

    /// A settings file, and what the refusal says.
    const WRONG: [(&str, &[&str]); 13] = [
        ("rounding = \"up\"", &["--rounding", "'up'", "projected"]),
        (
            "rounding = \"projected\"\nmethod = \"approx\"",
            &["--rounding projected", "--method approx", "exact"],
        ),
        (
            "rounding = \"feedback\"\nmethod = \"w-only\"",
            &["--rounding feedback", "--method w-only", "exact"],
        ),
        (
            "rounding = \"projected\"\nbase-share = 1.01",
            &["--base-share", "1.01", "0 to 1"],
        ),
        (
            "rounding = \"projected\"\nbase-share = -0.5",
            &["--base-share", "-0.5"],
        ),
        (
            "rounding = \"feedback\"\nrounding-shrinkage = \"rule\"",
            &["--rounding-shrinkage", "'rule'", "auto"],
        ),
        (
            "rounding = \"feedback\"\nrounding-shrinkage = 1.5",
            &["--rounding-shrinkage", "'1.5'"],
        ),
        (
            "rounding = \"feedback\"\nround-after = 0",
            &["--round-after", "at least 1"],
        ),
        (
            "rounding = \"feedback\"\nbase-share = 0.01",
            &["--base-share", "feedback", "only with projected"],
        ),
        ("base-share = 0.01", &["--base-share", "nearest"]),
        ("lower-rank = true", &["--lower-rank", "nearest"]),
        ("round-after = 4096", &["--round-after", "nearest"]),
        (
            "rounding = \"feedback\"\nround-after = 4096\nonce = true",
            &["--round-after", "--once"],
        ),
    ];

    #[test]
    fn what_is_wrong_or_would_do_nothing_is_refused_by_name() {
        for (text, said) in WRONG {
            let refused = Settings::from_toml(text).unwrap_err().to_string();
            for words in said {
                assert!(refused.contains(words), "{text}: {words}: {refused}");
            }
        }
        for idle in ["rounding-shrinkage = \"auto\"", "round-again = true"] {
            let refused = Settings::from_toml(idle).unwrap_err().to_string();
            let (option, _) = idle.split_once(' ').unwrap();
            assert!(refused.contains(option), "{idle}: {refused}");
        }
        assert!(Settings::from_toml("round-again = false\nlower-rank = false").is_ok());
    }
}
