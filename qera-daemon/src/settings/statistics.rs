//! `--statistics`: what is gathered of the inputs.

use core::fmt;

use qera_core::reconstruct::Method;

use crate::error::Fatal;
use crate::settings::options::Options;
use crate::settings::weights::WeightsSettings;

/// The size l of a sketch as a multiple of the largest rank, where l is not given. It comes within
/// half a percent of the optimum on real layers (docs/sketch.md).
const TIMES_RANK: usize = 4;
/// The most rows of a sketch. With more, its eigenproblem takes minutes.
const ROWS_MAX: usize = 4096;

/// The statistics to gather, where the option is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Statistics {
    /// R of every input is gathered.
    Full,
    /// The output errors of each layer are sketched, where that takes less memory than R.
    Sketch {
        /// The size l of a sketch, of which l - 1 rows are kept.
        rows: usize,
    },
    /// The diagonal of R is gathered.
    Diagonal,
}

/// The size l for this rank, where none is given.
#[must_use]
pub(crate) fn default_rows(rank: usize) -> usize {
    rank.saturating_mul(TIMES_RANK).clamp(2, ROWS_MAX)
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::Sketch { rows } => write!(f, "sketch={rows}"),
            Self::Diagonal => f.write_str("diagonal"),
        }
    }
}

impl Statistics {
    /// The statistics that were asked for; `None` where nothing was said, so that the method and
    /// the state decide. `rounds_under_r` is the name of a rounding that needs R.
    ///
    /// # Errors
    /// [`Fatal::Usage`] for what is not known, and for what cannot be had with the other options,
    /// by their names.
    pub(crate) fn resolve(
        options: &Options,
        weights: &WeightsSettings,
        method: Method,
        rounds_under_r: Option<&str>,
    ) -> Result<Option<Self>, Fatal> {
        let Some(text) = options.statistics.as_deref() else {
            return Ok(None);
        };
        let rank = weights.ranks.largest();
        let of = Self::parse(text, rank)?;
        let refuse = |why: String| Err(Fatal::Usage(format!("--statistics {of}: {why}")));
        if of == Self::Full {
            return Ok(Some(of));
        }
        if let Some(rounding) = rounds_under_r {
            return refuse(format!(
                "--rounding {rounding} rounds under R, which --statistics full gathers"
            ));
        }
        match of {
            Self::Diagonal if method.needs_r() => refuse(format!(
                "--method {} needs R or a sketch; --method approx does with the diagonal",
                method
            )),
            Self::Sketch { .. } if weights.checkpoint.is_none() => refuse(
                "sketches are of W - W~, and so need --checkpoint before the first row".into(),
            ),
            Self::Sketch { rows } if rows <= rank => refuse(format!(
                "keeps {} directions, and --rank or --rank-for asks for {rank}: more than that, best four times as many",
                rows - 1
            )),
            _ => Ok(Some(of)),
        }
    }

    fn parse(text: &str, rank: usize) -> Result<Self, Fatal> {
        let rows = match text.split_once('=') {
            None if text == "full" => return Ok(Self::Full),
            None if text == "diagonal" => return Ok(Self::Diagonal),
            None if text == "sketch" => Some(default_rows(rank)),
            Some(("sketch", rows)) => rows.parse().ok(),
            _ => None,
        };
        let rows = rows.filter(|rows| (2..=ROWS_MAX).contains(rows));
        rows.map(|rows| Self::Sketch { rows }).ok_or_else(|| {
            Fatal::Usage(format!(
                "--statistics: '{text}' is none of full, sketch, sketch=L with L from 2 to {ROWS_MAX}, and diagonal"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn asked(text: &str) -> Result<Option<Statistics>, String> {
        let text = format!("checkpoint = \"model\"\n{text}");
        let settings = Settings::from_toml(&text).map_err(|error| error.to_string())?;
        Ok(settings.solve.statistics)
    }

    #[test]
    fn every_choice_is_known_and_a_sketch_has_four_times_the_rank() {
        let sketch = |rows| Some(Statistics::Sketch { rows });
        for (text, expected) in [
            ("", None),
            ("statistics = \"full\"", Some(Statistics::Full)),
            ("statistics = \"sketch\"", sketch(128)),
            ("statistics = \"sketch=64\"", sketch(64)),
            ("statistics = \"sketch\"\nrank = 8", sketch(32)),
            (
                "statistics = \"sketch\"\nrank-for = [\"*.q=100\"]",
                sketch(400),
            ),
            (
                "statistics = \"diagonal\"\nmethod = \"approx\"",
                Some(Statistics::Diagonal),
            ),
        ] {
            assert_eq!(asked(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        for (text, said) in [
            ("statistics = \"half\"", "'half'"),
            ("statistics = \"sketch=1\"", "from 2"),
            ("statistics = \"sketch=x\"", "'sketch=x'"),
            ("statistics = \"full=2\"", "'full=2'"),
            ("statistics = \"diagonal\"", "--method exact needs R"),
            ("statistics = \"sketch=32\"", "keeps 31 directions"),
            (
                "statistics = \"sketch=64\"\nrank-for = [\"*.q=100\"]",
                "asks for 100",
            ),
            (
                "statistics = \"sketch\"\nrounding = \"projected\"",
                "--rounding projected rounds under R",
            ),
            (
                "statistics = \"sketch\"\nrounding = \"feedback\"",
                "--rounding feedback rounds under R",
            ),
        ] {
            let message = asked(text).unwrap_err();
            assert!(message.contains(said), "{text}: {message}");
        }
        let bare = Settings::from_toml("statistics = \"sketch\"").unwrap_err();
        assert!(bare.to_string().contains("--checkpoint"), "{bare}");
    }
}
