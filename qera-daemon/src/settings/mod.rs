//! From options to values that cannot be wrong. Options are parsed only here, in one part for each
//! stage, and every later module gets its part of [`Settings`].

pub(crate) mod compute;
pub(crate) mod convergence;
pub(crate) mod device;
pub(crate) mod dotted;
pub(crate) mod gguf_path;
pub(crate) mod imatrix;
pub(crate) mod layered;
pub(crate) mod log_format;
pub(crate) mod memory_budget;
pub(crate) mod name_map;
pub(crate) mod notify;
pub(crate) mod options;
pub(crate) mod parse;
pub(crate) mod publish;
pub(crate) mod replay;
pub(crate) mod rounding;
pub(crate) mod solve;
pub(crate) mod source;
pub(crate) mod statistics;
pub(crate) mod weight_format;
pub(crate) mod weights;

use std::path::{Path, PathBuf};

use crate::disk;
use crate::error::Fatal;
use crate::settings::compute::ComputeSettings;
use crate::settings::convergence::ConvergenceSettings;
use crate::settings::imatrix::ImatrixSettings;
use crate::settings::layered::Layered;
use crate::settings::log_format::LogFormat;
use crate::settings::options::Options;
use crate::settings::publish::PublishSettings;
use crate::settings::rounding::RoundingSettings;
use crate::settings::solve::SolveSettings;
use crate::settings::source::SourceSettings;
use crate::settings::statistics::Statistics;
use crate::settings::weights::WeightsSettings;

/// Everything a run needs to know, checked.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The watched folder.
    pub(crate) source: SourceSettings,
    /// Statistics that another program gathered.
    pub(crate) imatrix: ImatrixSettings,
    /// The weights.
    pub(crate) weights: WeightsSettings,
    /// How A and B are made.
    pub(crate) solve: SolveSettings,
    /// How W~ is made, and when.
    pub(crate) rounding: RoundingSettings,
    /// When more rows no longer help.
    pub(crate) convergence: ConvergenceSettings,
    /// Folder of statistics, journal and evidence.
    pub(crate) state: PathBuf,
    /// Whether the run goes on although rows are lost.
    pub(crate) accept_loss: bool,
    /// Where generations go.
    pub(crate) publish: PublishSettings,
    /// On which cores, by which instructions and in how much memory is computed.
    pub(crate) compute: ComputeSettings,
    /// The form of messages.
    pub(crate) log_format: LogFormat,
}

impl Settings {
    /// Settings from the text of a settings file, over the defaults.
    ///
    /// # Errors
    /// [`Fatal::Usage`].
    pub(crate) fn from_toml(text: &str) -> Result<Self, Fatal> {
        Self::resolve(&Layered::of_text(text)?.options)
    }

    /// Checks the merged options.
    ///
    /// # Errors
    /// [`Fatal::Usage`] with the option's name, the value and the valid ones.
    pub(crate) fn resolve(options: &Options) -> Result<Self, Fatal> {
        let weights = WeightsSettings::resolve(options)?;
        let mut solve = SolveSettings::resolve(options)?;
        let rounding = RoundingSettings::resolve(options, &solve)?;
        let under_r = rounding.rounding.uses_rows();
        let under_r = under_r.then(|| rounding.rounding.name());
        solve.statistics = Statistics::resolve(options, &weights, solve.method, under_r)?;
        let publish = PublishSettings::resolve(options, rounding.rounding, &weights.quantizer)?;
        let convergence = ConvergenceSettings::resolve(options)?;
        if convergence.is_once() {
            rounding.refuse_round_after("--once")?;
        }
        publish.check_holds(solve.factor_dtype)?;
        let imatrix = ImatrixSettings::resolve(options, rounding.rounding)?;
        imatrix.check_corrects(&solve)?;
        Ok(Self {
            source: SourceSettings::resolve(options)?,
            imatrix,
            weights,
            solve,
            rounding,
            convergence,
            state: state(options, &publish.out)?,
            accept_loss: options.accept_loss.unwrap_or_default(),
            publish,
            compute: ComputeSettings::resolve(options)?,
            log_format: LogFormat::resolve(options)?,
        })
    }
}

fn state(options: &Options, out: &Path) -> Result<PathBuf, Fatal> {
    let is_out = |state: &Path| disk::full(state) == disk::full(out);
    if options.state.as_deref().is_some_and(is_out) {
        return Err(Fatal::Usage(
            "--state and --out: are the same folder; --state is OUT/state unless it is given"
                .into(),
        ));
    }
    Ok(options.state.clone().unwrap_or_else(|| out.join("state")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            checkpoint: Some("model".into()),
            ..Options::defaults()
        }
    }

    type Change = fn(&mut Options);

    /// The name that the message must contain, and the wrong option.
    const WRONG: [(&str, Change); 20] = [
        ("tolerance", |o| o.tolerance = Some(0.0)),
        ("idle-publish", |o| o.idle_publish = Some(-1.0)),
        ("rescan-interval", |o| o.rescan_interval = Some(f64::NAN)),
        ("pause-above", |o| o.pause_above = Some("none".into())),
        ("keep-generations", |o| o.keep_generations = Some(2)),
        ("until-converged", |o| {
            (o.once, o.until_converged) = (Some(true), Some(true));
        }),
        ("require-all", |o| o.require_all = Some(true)),
        ("method", |o| o.method = Some("best".into())),
        ("quantizer", |o| o.quantizer = Some("mxint9".into())),
        ("block-size", |o| o.block_size = Some(0)),
        ("rank", |o| o.rank = Some(0)),
        ("rank-for", |o| o.rank_for = vec!["*".into()]),
        ("shrinkage", |o| o.shrinkage = Some("1.5".into())),
        ("rounding", |o| o.rounding = Some("up".into())),
        ("include", |o| o.include = vec!["[".into()]),
        ("dtype", |o| o.dtype = Some("f8".into())),
        ("--dtype q8_0", |o| o.dtype = Some("q8_0".into())),
        ("threads", |o| o.threads = Some(0)),
        ("--device:", |o| o.device = Some("gpu".into())),
        ("device-memory", |o| o.device_memory = Some("0".into())),
    ];

    #[test]
    fn every_wrong_value_is_refused_by_name() {
        for (name, change) in WRONG {
            let mut wrong = options();
            change(&mut wrong);
            let message = Settings::resolve(&wrong).unwrap_err().to_string();
            assert!(message.contains(name), "{name}: {message}");
        }
        // The same folder written differently, whether it exists or not.
        let here = std::env::temp_dir().join(format!("qera-same-{}", std::process::id()));
        std::fs::create_dir_all(here.join("real")).unwrap();
        std::os::unix::fs::symlink("real", here.join("link")).unwrap();
        for (out, state) in [
            ("X", "X"),
            ("X", "./X"),
            ("X", "X/"),
            ("X/Y", "X/Z/../Y"),
            ("real", "link"),
            ("real/new", "link/new"),
        ] {
            let options = Options {
                out: Some(here.join(out)),
                state: Some(format!("{}/{state}", here.display()).into()),
                ..options()
            };
            let error = Settings::resolve(&options).unwrap_err();
            assert_eq!(error.exit().code(), 2, "{out} {state}: {error}");
        }
        std::fs::remove_dir_all(&here).unwrap();
        let bare = Settings::resolve(&Options::defaults()).unwrap();
        assert!(bare.weights.needed_checkpoint().is_err());
        assert_eq!(bare.state, Path::new("qera-out/state"));
        assert!(Settings::resolve(&options()).is_ok());
    }

    #[test]
    fn selection_and_ranks_by_glob() {
        let settings = Settings::resolve(&Options {
            include: vec!["model.layers.*".into(), "lm_head".into()],
            exclude: vec!["*.o_proj".into()],
            rank_for: vec!["*.mlp.*=8".into(), "*.layers.0.mlp.*=4".into()],
            ..options()
        })
        .unwrap();
        let selection = &settings.weights.selection;
        assert!(selection.selects("model.layers.1.mlp.up_proj"));
        assert!(!selection.selects("model.layers.1.self_attn.o_proj"));
        assert!(!selection.selects("model.embed_tokens"));
        assert!(selection.selects("lm_head"), "named in full");
        assert_eq!(settings.weights.ranks.of("model.layers.1.mlp.up_proj"), 8);
        assert_eq!(settings.weights.ranks.of("model.layers.0.mlp.up_proj"), 4);
        assert_eq!(
            settings.weights.ranks.of("model.layers.0.self_attn.q_proj"),
            32
        );
    }
}
