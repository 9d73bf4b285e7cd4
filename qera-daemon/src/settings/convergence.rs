//! When a run ends, when a layer counts as converged, and what happens to the rows of converged
//! layers.

use crate::error::Fatal;
use crate::settings::options::{AFTER_CONVERGENCE, Options};
use crate::settings::parse::one_of;

/// Settings of convergence: when more rows no longer help.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvergenceSettings {
    /// When the run ends.
    pub(crate) until: Until,
    /// A converged layer's error may still fall by at most this share.
    pub(crate) tolerance: f64,
    /// What a converged site does with new rows.
    pub(crate) after: AfterConvergence,
}

/// When a run ends. The first signal ends any run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// `--once`: when everything in the folder is folded and published. Also `--imatrix` alone.
    Once,
    /// `--until-converged`: when the layers have converged; `all` waits for starved ones as well.
    Converged {
        /// `--require-all`.
        all: bool,
    },
    /// When a signal comes.
    Signal,
}

/// The share of blocks that [`AfterConvergence::Sample`] folds.
const SAMPLED: f64 = 1.0 / 16.0;

/// `--after-convergence`: what a converged site does with its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterConvergence {
    /// Rows are folded and layers solved as before.
    Full,
    /// One block of sixteen is folded.
    Sample,
    /// Nothing is folded.
    Stop,
}

impl AfterConvergence {
    /// The value of this name.
    #[must_use]
    pub(crate) fn parse(name: &str) -> Self {
        match name {
            "sample" => Self::Sample,
            "stop" => Self::Stop,
            _ => Self::Full,
        }
    }

    /// The share of a closed site's blocks that is folded.
    #[must_use]
    pub(crate) const fn share(self) -> f64 {
        match self {
            Self::Full => 1.0,
            Self::Sample => SAMPLED,
            Self::Stop => 0.0,
        }
    }
}

impl ConvergenceSettings {
    /// Checks the options of this part.
    ///
    /// # Errors
    /// [`Fatal::Usage`].
    pub(crate) fn resolve(options: &Options) -> Result<Self, Fatal> {
        let after = options.after_convergence.as_deref();
        Ok(Self {
            until: until(options)?,
            tolerance: options
                .tolerance
                .filter(|t| *t > 0.0 && t.is_finite())
                .ok_or_else(|| Fatal::Usage("--tolerance: must be above 0".into()))?,
            after: AfterConvergence::parse(one_of("after-convergence", after, &AFTER_CONVERGENCE)?),
        })
    }

    /// Whether the run solves what is there and ends. Such a run has no solve points.
    #[must_use]
    pub(crate) fn is_once(&self) -> bool {
        self.until == Until::Once
    }

    /// Whether sites are closed when they have converged. A run without solve points closes none.
    #[must_use]
    pub(crate) fn closes_sites(&self) -> bool {
        self.after != AfterConvergence::Full && !self.is_once()
    }
}

fn until(options: &Options) -> Result<Until, Fatal> {
    let all = options.require_all.unwrap_or_default();
    let asked = |option: Option<bool>| option.unwrap_or_default();
    match (asked(options.once), asked(options.until_converged)) {
        (true, true) => Err(Fatal::Usage(
            "--once and --until-converged: give one of them only".into(),
        )),
        (_, true) if options.checkpoint.is_none() => Err(Fatal::Usage(
            "--until-converged: needs --checkpoint, without one nothing is solved".into(),
        )),
        (_, false) if all => Err(Fatal::Usage(
            "--require-all: belongs to --until-converged".into(),
        )),
        (true, false) => Ok(Until::Once),
        // There is nothing to wait for.
        (false, false) if options.watch.is_none() && !options.imatrix.is_empty() => Ok(Until::Once),
        (false, true) => Ok(Until::Converged { all }),
        (false, false) => Ok(Until::Signal),
    }
}
