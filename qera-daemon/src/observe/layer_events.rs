//! Events about a layer or its site.

use core::fmt;

use serde::Serialize;

/// A layer has converged, or has not any more.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LayerConverged<'a> {
    /// Module path.
    pub(crate) layer: &'a str,
    /// Whether it has converged, or no longer has.
    pub(crate) converged: bool,
    /// Number of rows folded.
    pub(crate) rows: u64,
    /// Upper limit of the gain from the last half as many rows again.
    pub(crate) gain_upper: Option<f64>,
}

impl fmt::Display for LayerConverged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            layer,
            converged,
            rows,
            gain_upper,
        } = self;
        if !converged {
            return write!(f, "{layer}: no longer converged at {rows} rows");
        }
        write!(f, "{layer}: converged at {rows} rows")?;
        match gain_upper {
            Some(upper) => write!(f, " (gain of the last ones at most {upper:.4})"),
            None => Ok(()),
        }
    }
}

/// All layers of a site have converged, and rows are left out from now on.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SiteClosed<'a> {
    /// Module path of the site's first layer.
    pub(crate) site: &'a str,
    /// Number of rows that came.
    pub(crate) rows: u64,
    /// The share of rows that is folded.
    pub(crate) share: f64,
}

impl fmt::Display for SiteClosed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { site, rows, share } = self;
        write!(f, "{site}: closed at {rows} rows, ")?;
        if *share > 0.0 {
            write!(f, "one block of {:.0} is folded from here on", 1.0 / share)
        } else {
            f.write_str("none is folded from here on")
        }
    }
}

/// The error on new rows relative to no correction, then and now; a pair in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(into = "[f64; 2]")]
pub(crate) struct ErrorRise {
    /// The error when the site was closed.
    pub(crate) before: f64,
    /// The error now.
    pub(crate) now: f64,
}

impl From<ErrorRise> for [f64; 2] {
    fn from(ErrorRise { before, now }: ErrorRise) -> Self {
        [before, now]
    }
}

/// A layer that had converged has drifted, and all rows of its site are folded again.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LayerReopened<'a> {
    /// Module path.
    pub(crate) layer: &'a str,
    /// Number of rows that came.
    pub(crate) rows: u64,
    /// How the error rose, if that is the reason.
    pub(crate) error: Option<ErrorRise>,
    /// Lower limit of the latest solve's gain, if that is the reason.
    pub(crate) gain_lower: Option<f64>,
}

impl fmt::Display for LayerReopened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            layer,
            rows,
            error,
            gain_lower,
        } = self;
        write!(f, "{layer}: drift at {rows} rows")?;
        if let Some(ErrorRise { before, now }) = error {
            write!(
                f,
                ": error on new rows rose from x{before:.3} to x{now:.3} of the uncorrected"
            )?;
        }
        if let Some(lower) = gain_lower {
            write!(f, ": the latest solve gained at least {lower:.4}")?;
        }
        f.write_str("; site re-opened, all of its rows are folded again")
    }
}

/// A layer was solved: it has a correction, or there was nothing to correct.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LayerCorrected<'a> {
    /// Module path.
    pub(crate) layer: &'a str,
    /// The rank that is used; 0 where nothing was corrected.
    pub(crate) rank: usize,
    /// Output error relative to the output, without correction.
    pub(crate) error_without: f64,
    /// The relative output error that is left with the correction as written.
    pub(crate) error_with: f64,
    /// The held-out error with the correction, relative to that without; `None` where nothing was
    /// corrected.
    pub(crate) held_out_ratio: Option<f64>,
    /// Shrinkage of R, for QERA-exact.
    pub(crate) shrinkage: Option<f64>,
}

impl fmt::Display for LayerCorrected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            layer,
            rank,
            error_without,
            error_with,
            held_out_ratio,
            shrinkage,
        } = self;
        if *rank == 0 {
            return if *error_without > 0.0 {
                write!(f, "{layer}: error {error_without:.3e}, not corrected")
            } else {
                write!(f, "{layer}: nothing to correct")
            };
        }
        write!(
            f,
            "{layer}: error {error_without:.3e} -> {error_with:.3e} (rank {rank}"
        )?;
        if let Some(a) = shrinkage {
            write!(f, ", shrinkage {a:.2}")?;
        }
        if let Some(ratio) = held_out_ratio {
            write!(f, ", held-out x{ratio:.3}")?;
        }
        write!(f, ")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::event::Event;

    #[track_caller]
    fn check(event: &Event<'_>, text: &str, json: &str) {
        assert_eq!(event.to_string(), text);
        assert_eq!(serde_json::to_string(event).unwrap(), json);
    }

    #[test]
    fn corrections_are_told() {
        let uncorrected = |error| {
            Event::LayerSolved(LayerCorrected {
                layer: "q",
                rank: 0,
                error_without: error,
                error_with: error,
                held_out_ratio: None,
                shrinkage: None,
            })
        };
        assert_eq!(uncorrected(0.0).to_string(), "q: nothing to correct");
        check(
            &uncorrected(0.5),
            "q: error 5.000e-1, not corrected",
            r#"{"event":"layer-solved","layer":"q","rank":0,"error_without":0.5,"error_with":0.5,"held_out_ratio":null,"shrinkage":null}"#,
        );
        let solved = |held_out_ratio, shrinkage| {
            Event::LayerSolved(LayerCorrected {
                layer: "q",
                rank: 8,
                error_without: 0.5,
                error_with: 0.25,
                held_out_ratio,
                shrinkage,
            })
        };
        check(
            &solved(None, None),
            "q: error 5.000e-1 -> 2.500e-1 (rank 8)",
            r#"{"event":"layer-solved","layer":"q","rank":8,"error_without":0.5,"error_with":0.25,"held_out_ratio":null,"shrinkage":null}"#,
        );
        check(
            &solved(Some(0.5), Some(0.75)),
            "q: error 5.000e-1 -> 2.500e-1 (rank 8, shrinkage 0.75, held-out x0.500)",
            r#"{"event":"layer-solved","layer":"q","rank":8,"error_without":0.5,"error_with":0.25,"held_out_ratio":0.5,"shrinkage":0.75}"#,
        );
    }
}
