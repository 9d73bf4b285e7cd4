//! Settings of rounding: whether W~ takes statistics and adapter into account, and when it is made.

use serde::{Deserialize, Serialize};

use crate::error::Fatal;
use crate::settings::options::{Options, ROUNDINGS};
use crate::settings::parse::one_of;
use crate::settings::solve::SolveSettings;

/// The share of R_a beside R_perp, unless `--base-share` gives another.
const BASE_SHARE: f64 = 0.01;
/// R holds at least this many rows when a layer is rounded, or a multiple of in_features, unless
/// `--round-after` gives another number.
const LEAST_ROWS: u64 = 4096;
const LEAST_ROWS_AN_INPUT: u64 = 4;

/// `--rounding`: how W is rounded to W~.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Rounding {
    /// Each weight goes to its nearest level, whatever the inputs.
    Nearest,
    /// Under R_a: the errors of each input are made good by inputs that are rounded later.
    Feedback,
    /// Under the part of R_a that an adapter of this rank leaves.
    Projected,
}

/// `--rounding-shrinkage`: the a of R_a = (1 - a) R + a diag(R) while rounding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum RoundingShrinkage {
    /// 3 m / (3 m + N), for m in_features and N rows.
    Rule,
    /// The best on held-out blocks of half, one and two times the rule's odds.
    Auto,
    /// A given number.
    Fixed(f64),
}

/// How W~ is made, and when.
///
/// Without a checkpoint these settings have no effect: statistics are gathered in any case, and
/// whoever solves them rounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoundingSettings {
    /// Which rounding.
    pub(crate) rounding: Rounding,
    /// The shrinkage of R toward its diagonal.
    pub(crate) shrinkage: RoundingShrinkage,
    /// The base share b: how much W~'s error without the adapter counts, from 0 (not at all) to 1.
    pub(crate) base_share: f64,
    /// The least number of rows that R must hold.
    pub(crate) round_after: Option<u64>,
    /// Whether `solve` makes a new W~ in the place of the state's.
    pub(crate) round_again: bool,
    /// Whether a W~ that was rounded for a higher rank is accepted.
    pub(crate) lower_rank: bool,
}

impl Rounding {
    /// The rounding's name on the command line and in manifests.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Feedback => "feedback",
            Self::Projected => "projected",
        }
    }

    /// Whether W~ depends on rows. Then it is made once, kept, and written as a base.
    #[must_use]
    pub(crate) const fn uses_rows(self) -> bool {
        !matches!(self, Self::Nearest)
    }

    /// Whether W~ depends on the adapter's rank; then the base share counts.
    #[must_use]
    pub(crate) const fn knows_the_adapter(self) -> bool {
        matches!(self, Self::Projected)
    }
}

impl RoundingSettings {
    /// Checks the options of this part.
    ///
    /// # Errors
    /// [`Fatal::Usage`], also for an option that does nothing with this rounding.
    pub(crate) fn resolve(options: &Options, solve: &SolveSettings) -> Result<Self, Fatal> {
        let name = match options.quantized {
            // Without a checkpoint nothing is rounded.
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
                "--rounding {} --method {}: this rounding needs R, which only --method exact gathers",
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

    /// The number of rows that R of this width must hold before its layers are rounded.
    #[must_use]
    pub(crate) fn round_after_rows(&self, in_features: usize) -> u64 {
        let of_inputs = LEAST_ROWS_AN_INPUT.saturating_mul(in_features as u64);
        self.round_after.unwrap_or(of_inputs.max(LEAST_ROWS))
    }

    /// Refuses an option that only `solve` can follow.
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

    /// Refuses an option that only a run with solve points reads.
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

/// Refuses a given option that nothing would read.
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

    /// Settings from the text of a settings file.
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

    /// A settings file, and the words of its refusal.
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
