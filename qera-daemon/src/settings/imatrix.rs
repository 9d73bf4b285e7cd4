//! `--imatrix`: statistics that another program gathered, alone or beside a watched folder.

use std::path::PathBuf;

use crate::error::Fatal;
use crate::settings::options::Options;
use crate::settings::rounding::Rounding;
use crate::settings::solve::SolveSettings;

/// The files, and an option that a run with these files alone cannot use.
#[derive(Debug, Clone)]
pub(crate) struct ImatrixSettings {
    /// The files, in the order of the options; none where no imatrix was given.
    pub(crate) files: Vec<PathBuf>,
    /// The first given option that only makes sense with a watched folder.
    of_a_watched_folder: Option<&'static str>,
}

impl ImatrixSettings {
    /// Checks the options of this part.
    ///
    /// # Errors
    /// [`Fatal::Usage`].
    pub(crate) fn resolve(options: &Options, rounding: Rounding) -> Result<Self, Fatal> {
        let files = options.imatrix.clone();
        if !files.is_empty() && options.checkpoint.is_none() {
            return Err(Fatal::Usage(
                "--imatrix: needs --checkpoint, the weights that are corrected with it".into(),
            ));
        }
        if !files.is_empty() && rounding.uses_rows() {
            return Err(Fatal::Usage(format!(
                "--imatrix: not with --rounding {}, which rounds under R; an imatrix has none: \
                 --rounding nearest",
                rounding.name()
            )));
        }
        Ok(Self {
            files,
            of_a_watched_folder: of_a_watched_folder(options),
        })
    }

    /// Whether an imatrix was given.
    #[must_use]
    pub(crate) const fn is_given(&self) -> bool {
        !self.files.is_empty()
    }

    /// Refuses a method that corrects nothing. Otherwise the imatrix would correct the layers
    /// without rows, and nothing else would be corrected.
    ///
    /// # Errors
    /// [`Fatal::Usage`].
    pub(crate) fn check_corrects(&self, solve: &SolveSettings) -> Result<(), Fatal> {
        let method = solve.method;
        if !self.is_given() || method.corrects() {
            return Ok(());
        }
        Err(Fatal::Usage(format!(
            "--method {method}: corrects nothing, and --imatrix is there to correct: --method \
             approx, or no --imatrix"
        )))
    }

    /// Refuses settings for which the imatrix alone is not enough.
    ///
    /// # Errors
    /// [`Fatal::Usage`] naming an option that is impossible, or would do nothing.
    pub(crate) fn check_alone(&self, solve: &SolveSettings) -> Result<(), Fatal> {
        let method = solve.method;
        if !method.is_of_mean_squares() {
            let why = if method.needs_r() {
                "an imatrix has no R"
            } else {
                "an imatrix has E[x^2] and nothing else"
            };
            return Err(Fatal::Usage(format!(
                "--method {method}: {why}: --method approx, or --watch DIR for rows to solve from"
            )));
        }
        match self.of_a_watched_folder {
            None => Ok(()),
            Some(option) => Err(Fatal::Usage(format!(
                "--{option}: does nothing without --watch DIR: with --imatrix alone every layer is \
                 solved once, and no state is kept"
            ))),
        }
    }
}

/// The first given option that only a watched folder can use.
fn of_a_watched_folder(options: &Options) -> Option<&'static str> {
    let usual = Options::defaults();
    let changed = [
        ("state", options.state.is_some()),
        (
            "until-converged",
            options.until_converged != usual.until_converged,
        ),
        ("require-all", options.require_all != usual.require_all),
        ("tolerance", options.tolerance != usual.tolerance),
        (
            "after-convergence",
            options.after_convergence != usual.after_convergence,
        ),
        ("idle-publish", options.idle_publish != usual.idle_publish),
        ("consume", options.consume != usual.consume),
        ("watch-mode", options.watch_mode != usual.watch_mode),
        (
            "rescan-interval",
            options.rescan_interval != usual.rescan_interval,
        ),
        ("pause-above", options.pause_above != usual.pause_above),
        ("map", !options.map.is_empty()),
    ];
    let found = changed.into_iter().find(|(_, changed)| *changed);
    found.map(|(option, _)| option)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            checkpoint: Some("model".into()),
            imatrix: vec!["imatrix.gguf".into()],
            method: Some("approx".into()),
            ..Options::defaults()
        }
    }

    fn refusal(options: &Options) -> String {
        let settings = ImatrixSettings::resolve(options, Rounding::Nearest).unwrap();
        let solve = SolveSettings::resolve(options).unwrap();
        let refused = settings.check_alone(&solve);
        refused.map_or_else(|e| e.to_string(), |()| String::new())
    }

    #[test]
    fn alone_it_serves_approx_only_and_what_would_do_nothing_is_refused_by_name() {
        assert_eq!(refusal(&options()), "");
        for (method, why) in [
            ("exact", "an imatrix has no R: --method approx"),
            ("lqer", "nothing else: --method approx"),
            ("w-only", "nothing else: --method approx"),
        ] {
            let of = Options {
                method: Some(method.into()),
                ..options()
            };
            let said = refusal(&of);
            assert!(said.starts_with(&format!("--method {method}: ")), "{said}");
            assert!(said.contains(why), "{said}");
        }
        type Change = fn(&mut Options);
        let changes: [(&str, Change); 6] = [
            ("--state", |o| o.state = Some("state".into())),
            ("--until-converged", |o| o.until_converged = Some(true)),
            ("--tolerance", |o| o.tolerance = Some(0.5)),
            ("--consume", |o| o.consume = Some("delete".into())),
            ("--watch-mode", |o| o.watch_mode = Some("poll".into())),
            ("--map", |o| o.map = vec!["a=b".into()]),
        ];
        for (option, change) in changes {
            let mut of = options();
            change(&mut of);
            let said = refusal(&of);
            assert!(said.starts_with(option), "{option}: {said}");
        }
        let once = Options {
            once: Some(true),
            on_publish: Some("true".into()),
            ..options()
        };
        assert_eq!(refusal(&once), "");
    }

    #[test]
    fn it_needs_weights_and_rounds_nothing() {
        let bare = Options {
            checkpoint: None,
            ..options()
        };
        let refused = |of, rounding| ImatrixSettings::resolve(of, rounding).unwrap_err();
        let said = refused(&bare, Rounding::Nearest).to_string();
        assert!(said.contains("--imatrix: needs --checkpoint"), "{said}");
        let said = refused(&options(), Rounding::Projected).to_string();
        assert!(said.contains("not with --rounding projected"), "{said}");
    }
}
