//! From what was typed to values that cannot be wrong: options are parsed here once, and every later
//! module receives [`Settings`].

pub(crate) mod after_convergence;
pub(crate) mod layered;
pub(crate) mod memory_budget;
pub(crate) mod options;

use core::time::Duration;
use std::path::{Path, PathBuf};

use globset::{Glob, GlobMatcher};
use qera_core::dtype::FloatDtype;
use qera_core::quantize::Mxint;
use qera_core::reconstruct::Method;

use crate::error::Fatal;
use crate::host::kernels::Kernel;
use crate::settings::after_convergence::AfterConvergence;
use crate::settings::memory_budget::MemoryBudget;
use crate::settings::options::{
    AFTER_CONVERGENCE, CONSUMES, FACTOR_DTYPES, LOG_FORMATS, METHODS, Options, QUANTIZERS,
    WATCH_MODES,
};

/// More would only fail when they are started.
const THREADS_MAX: usize = 1024;

/// Modules that are not corrected unless `--include` names one in full: outputs and embeddings.
pub(crate) const DEFAULT_EXCLUDES: [&str; 10] = [
    "*lm_head*",
    "output",
    "*embed*",
    "wte",
    "*.wte",
    "wpe",
    "*.wpe",
    "shared",
    "*.shared",
    "*relative_attention_bias*",
];

/// Everything a run needs to know, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder of activation shards.
    pub(crate) watch: Option<PathBuf>,
    /// Safetensors file or folder; without one, statistics are gathered and nothing is solved.
    pub(crate) checkpoint: Option<PathBuf>,
    /// Where generations go.
    pub(crate) out: PathBuf,
    /// Statistics, journal and evidence.
    pub(crate) state: PathBuf,
    /// When the run ends.
    pub(crate) until: Until,
    /// Share of the error by which a converged layer may still fall.
    pub(crate) tolerance: f64,
    /// What a converged site does with new rows.
    pub(crate) after_convergence: AfterConvergence,
    /// How a live run deals with the folder.
    pub(crate) watching: Watching,
    /// Generations kept.
    pub(crate) keep_generations: usize,
    /// Command after each publication.
    pub(crate) on_publish: Option<String>,
    /// How C is computed.
    pub(crate) method: Method,
    /// How W~ is made.
    pub quantizer: Mxint,
    /// Rank per layer.
    pub(crate) ranks: Ranks,
    /// How far R is shrunk toward its diagonal.
    pub(crate) shrinkage: Shrinkage,
    /// Which layers.
    pub(crate) selection: Selection,
    /// Whether `OUT/base` is written.
    pub(crate) emit_base: bool,
    /// dtype of A and B.
    pub(crate) factor_dtype: FloatDtype,
    /// What the plan may use.
    pub(crate) memory_budget: MemoryBudget,
    /// Worker threads of each compute stage.
    pub(crate) threads: usize,
    /// Instructions that accumulate and solve.
    pub(crate) kernel: Kernel,
    /// Form of messages.
    pub(crate) log_format: LogFormat,
}

/// When a run ends; the first signal ends any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// `--once`: when everything in the folder is folded and published.
    Once,
    /// `--until-converged`: when the layers have converged; `all` waits for starved ones as well.
    Converged {
        /// `--require-all`.
        all: bool,
    },
    /// When a signal comes.
    Signal,
}

/// How a live run deals with the watched folder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watching {
    /// `--watch-mode`.
    pub(crate) mode: WatchMode,
    /// `--rescan-interval`.
    pub(crate) rescan: Duration,
    /// `--idle-publish`.
    pub(crate) idle: Duration,
    /// `--consume`.
    pub(crate) consume: Consume,
}

/// `--watch-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchMode {
    /// Events, except on file systems that report none.
    Auto,
    /// Events.
    Events,
    /// Listing at intervals.
    Poll,
}

/// `--consume`: what becomes of a shard whose contribution is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consume {
    /// It stays.
    Keep,
    /// It is removed.
    Delete,
    /// It goes to `WATCH/.consumed/`.
    Move,
}

/// `--shrinkage`: R_a = (1 - a) R + a diag(R).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shrinkage {
    /// Chosen on held-out blocks.
    Auto,
    /// Given; 0 is QERA-exact as in the paper, 1 is QERA-approx.
    Fixed(f64),
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Lines for a person, and a progress bar on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// `--rank` and `--rank-for`.
#[derive(Debug, Clone)]
pub(crate) struct Ranks {
    default: usize,
    overrides: Vec<(GlobMatcher, usize)>,
}

impl Ranks {
    /// The rank asked for this layer: the last `--rank-for` that matches, else `--rank`.
    #[must_use]
    pub(crate) fn of(&self, layer: &str) -> usize {
        self.overrides
            .iter()
            .rev()
            .find(|(glob, _)| glob.is_match(layer))
            .map_or(self.default, |(_, rank)| *rank)
    }

    /// A pattern of `--rank-for` that none of the layers matches.
    #[must_use]
    pub(crate) fn unmatched(&self, layers: &[&str]) -> Option<&str> {
        let idle = |glob: &GlobMatcher| !layers.iter().any(|layer| glob.is_match(layer));
        self.overrides
            .iter()
            .map(|(glob, _)| glob)
            .find(|glob| idle(glob))
            .map(|glob| glob.glob().glob())
    }
}

/// `--include` and `--exclude`.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    /// Empty: everything that is not excluded.
    pub(crate) include: Vec<GlobMatcher>,
    exclude: Vec<GlobMatcher>,
    default_exclude: Vec<GlobMatcher>,
}

impl Selection {
    /// Whether an exclude pattern, given or by default, takes this module out.
    #[must_use]
    pub(crate) fn excludes(&self, module: &str) -> bool {
        let named = || self.include.iter().any(|glob| glob.glob().glob() == module);
        self.exclude.iter().any(|glob| glob.is_match(module))
            || (self
                .default_exclude
                .iter()
                .any(|glob| glob.is_match(module))
                && !named())
    }

    /// Whether this module is to be corrected, as far as its name says.
    #[must_use]
    pub(crate) fn selects(&self, module: &str) -> bool {
        (self.include.is_empty() || self.include.iter().any(|glob| glob.is_match(module)))
            && !self.excludes(module)
    }
}

impl Settings {
    /// Checks the merged options.
    ///
    /// # Errors
    /// [`Fatal::Usage`] with the option's name, the value and the valid ones.
    pub fn resolve(options: &Options) -> Result<Self, Fatal> {
        let quantizer = one_of("quantizer", options.quantizer.as_deref(), &QUANTIZERS)?;
        let element_bits: u32 = quantizer["mxint".len()..]
            .parse()
            .map_err(|_| Fatal::Usage(format!("--quantizer: '{quantizer}'")))?;
        let block_size = options.block_size.unwrap_or_default() as usize;
        let method = one_of("method", options.method.as_deref(), &METHODS)?;
        let default_rank = options.rank.unwrap_or_default() as usize;
        let threads = threads(options)?;
        at_least("rank", default_rank, 1)?;
        let keep_generations = options.keep_generations.unwrap_or_default() as usize;
        at_least("keep-generations", keep_generations, 3)?;
        let out = options.out.clone().unwrap_or_default();
        Ok(Self {
            watch: options.watch.clone(),
            checkpoint: options.checkpoint.clone(),
            state: state(options, &out)?,
            out,
            until: until(options)?,
            tolerance: options
                .tolerance
                .filter(|t| *t > 0.0 && t.is_finite())
                .ok_or_else(|| Fatal::Usage("--tolerance: must be above 0".into()))?,
            after_convergence: AfterConvergence::parse(one_of(
                "after-convergence",
                options.after_convergence.as_deref(),
                &AFTER_CONVERGENCE,
            )?),
            watching: watching(options)?,
            keep_generations,
            on_publish: options.on_publish.clone(),
            method: Method::parse(method)
                .ok_or_else(|| Fatal::Usage(format!("--method: unknown value '{method}'")))?,
            quantizer: Mxint::new(element_bits, block_size).map_err(|e| {
                Fatal::Usage(format!(
                    "--quantizer {quantizer} --block-size {block_size}: {e}"
                ))
            })?,
            ranks: Ranks {
                default: default_rank,
                overrides: options
                    .rank_for
                    .iter()
                    .map(|s| rank_for(s))
                    .collect::<Result<_, _>>()?,
            },
            shrinkage: shrinkage(options.shrinkage.as_deref().unwrap_or_default())?,
            selection: Selection {
                include: globs("include", &options.include)?,
                exclude: globs("exclude", &options.exclude)?,
                default_exclude: globs("exclude", &DEFAULT_EXCLUDES)?,
            },
            emit_base: options.emit_base.unwrap_or_default(),
            factor_dtype: match one_of("dtype", options.dtype.as_deref(), &FACTOR_DTYPES)? {
                "f32" => FloatDtype::F32,
                "f16" => FloatDtype::F16,
                _ => FloatDtype::Bf16,
            },
            memory_budget: MemoryBudget::parse(
                options.memory_budget.as_deref().unwrap_or_default(),
            )?,
            threads,
            kernel: Kernel::named(options.kernel.as_deref().unwrap_or("auto"))
                .map_err(|e| Fatal::Usage(format!("--kernel: {e}")))?,
            log_format: LogFormat::resolve(options)?,
        })
    }
}

impl Settings {
    /// The checkpoint, for what cannot be done without.
    ///
    /// # Errors
    /// [`Fatal::Usage`] where none was given.
    pub(crate) fn needed_checkpoint(&self) -> Result<&Path, Fatal> {
        self.checkpoint.as_deref().ok_or_else(|| {
            Fatal::Usage(
                "--checkpoint PATH is needed: the weights that the adapter corrects".into(),
            )
        })
    }
}

impl LogFormat {
    /// Checks `--log-format` alone: it is needed before the rest, to report the rest.
    ///
    /// # Errors
    /// [`Fatal::Usage`] for an unknown value.
    pub(crate) fn resolve(options: &Options) -> Result<Self, Fatal> {
        Ok(
            match one_of("log-format", options.log_format.as_deref(), &LOG_FORMATS)? {
                "json" => Self::Json,
                _ => Self::Text,
            },
        )
    }
}

fn one_of<'a>(option: &str, value: Option<&'a str>, valid: &[&str]) -> Result<&'a str, Fatal> {
    let value = value.unwrap_or_default();
    if valid.contains(&value) {
        return Ok(value);
    }
    Err(Fatal::Usage(format!(
        "--{option}: unknown value '{value}', one of {}",
        valid.join(", ")
    )))
}

fn at_least(option: &str, value: usize, least: usize) -> Result<(), Fatal> {
    if value < least {
        return Err(Fatal::Usage(format!(
            "--{option}: must be at least {least}"
        )));
    }
    Ok(())
}

fn threads(options: &Options) -> Result<usize, Fatal> {
    let threads = match options.threads {
        None => std::thread::available_parallelism().map_or(1, core::num::NonZero::get),
        Some(threads) => threads as usize,
    };
    at_least("threads", threads, 1)?;
    if threads > THREADS_MAX {
        return Err(Fatal::Usage(format!(
            "--threads: must be at most {THREADS_MAX}"
        )));
    }
    Ok(threads)
}

fn state(options: &Options, out: &Path) -> Result<PathBuf, Fatal> {
    if options.state.as_deref() == Some(out) {
        return Err(Fatal::Usage(
            "--state and --out: are the same folder; --state is OUT/state unless it is given"
                .into(),
        ));
    }
    Ok(options.state.clone().unwrap_or_else(|| out.join("state")))
}

fn until(options: &Options) -> Result<Until, Fatal> {
    let all = options.require_all.unwrap_or_default();
    let asked = |option: Option<bool>| option.unwrap_or_default();
    match (asked(options.once), asked(options.until_converged)) {
        (true, true) => Err(Fatal::Usage(
            "--once and --until-converged: one of them".into(),
        )),
        (_, true) if options.checkpoint.is_none() => Err(Fatal::Usage(
            "--until-converged: needs --checkpoint, without one nothing is solved".into(),
        )),
        (_, false) if all => Err(Fatal::Usage(
            "--require-all: belongs to --until-converged".into(),
        )),
        (true, false) => Ok(Until::Once),
        (false, true) => Ok(Until::Converged { all }),
        (false, false) => Ok(Until::Signal),
    }
}

fn watching(options: &Options) -> Result<Watching, Fatal> {
    Ok(Watching {
        mode: match one_of("watch-mode", options.watch_mode.as_deref(), &WATCH_MODES)? {
            "events" => WatchMode::Events,
            "poll" => WatchMode::Poll,
            _ => WatchMode::Auto,
        },
        rescan: seconds("rescan-interval", options.rescan_interval)?,
        idle: seconds("idle-publish", options.idle_publish)?,
        consume: match one_of("consume", options.consume.as_deref(), &CONSUMES)? {
            "delete" => Consume::Delete,
            "move" => Consume::Move,
            _ => Consume::Keep,
        },
    })
}

/// From 0.1 s, below which the folder would be listed without pause, to a year.
fn seconds(option: &str, value: Option<f64>) -> Result<Duration, Fatal> {
    value
        .filter(|s| (0.1..=31_536_000.0).contains(s))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| Fatal::Usage(format!("--{option}: must be from 0.1 to 31536000 seconds")))
}

fn shrinkage(text: &str) -> Result<Shrinkage, Fatal> {
    if text == "auto" {
        return Ok(Shrinkage::Auto);
    }
    match text.parse::<f64>() {
        Ok(a) if (0.0..=1.0).contains(&a) => Ok(Shrinkage::Fixed(a)),
        _ => Err(Fatal::Usage(format!(
            "--shrinkage: '{text}' is neither auto nor a number from 0 to 1"
        ))),
    }
}

fn globs(option: &str, patterns: &[impl AsRef<str>]) -> Result<Vec<GlobMatcher>, Fatal> {
    patterns.iter().map(|p| glob(option, p.as_ref())).collect()
}

fn glob(option: &str, pattern: &str) -> Result<GlobMatcher, Fatal> {
    Glob::new(pattern)
        .map(|glob| glob.compile_matcher())
        .map_err(|e| Fatal::Usage(format!("--{option}: {e}")))
}

fn rank_for(text: &str) -> Result<(GlobMatcher, usize), Fatal> {
    let wrong = || {
        Fatal::Usage(format!(
            "--rank-for: '{text}' is not GLOB=K with K at least 1"
        ))
    };
    let (pattern, rank) = text.rsplit_once('=').ok_or_else(wrong)?;
    let rank = rank
        .parse()
        .ok()
        .filter(|&rank| rank > 0)
        .ok_or_else(wrong)?;
    Ok((glob("rank-for", pattern)?, rank))
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

    #[test]
    #[expect(clippy::too_many_lines, reason = "a list of cases")]
    fn every_wrong_value_is_refused_by_name() {
        let cases: [(&str, Options); 15] = [
            (
                "tolerance",
                Options {
                    tolerance: Some(0.0),
                    ..options()
                },
            ),
            (
                "idle-publish",
                Options {
                    idle_publish: Some(-1.0),
                    ..options()
                },
            ),
            (
                "rescan-interval",
                Options {
                    rescan_interval: Some(f64::NAN),
                    ..options()
                },
            ),
            (
                "keep-generations",
                Options {
                    keep_generations: Some(2),
                    ..options()
                },
            ),
            (
                "until-converged",
                Options {
                    once: Some(true),
                    until_converged: Some(true),
                    ..options()
                },
            ),
            (
                "require-all",
                Options {
                    require_all: Some(true),
                    ..options()
                },
            ),
            (
                "method",
                Options {
                    method: Some("best".into()),
                    ..options()
                },
            ),
            (
                "quantizer",
                Options {
                    quantizer: Some("mxint9".into()),
                    ..options()
                },
            ),
            (
                "block-size",
                Options {
                    block_size: Some(0),
                    ..options()
                },
            ),
            (
                "rank",
                Options {
                    rank: Some(0),
                    ..options()
                },
            ),
            (
                "rank-for",
                Options {
                    rank_for: vec!["*".into()],
                    ..options()
                },
            ),
            (
                "shrinkage",
                Options {
                    shrinkage: Some("1.5".into()),
                    ..options()
                },
            ),
            (
                "include",
                Options {
                    include: vec!["[".into()],
                    ..options()
                },
            ),
            (
                "dtype",
                Options {
                    dtype: Some("f8".into()),
                    ..options()
                },
            ),
            (
                "threads",
                Options {
                    threads: Some(0),
                    ..options()
                },
            ),
        ];
        for (name, wrong) in cases {
            let message = Settings::resolve(&wrong).unwrap_err().to_string();
            assert!(message.contains(name), "{name}: {message}");
        }
        let bare = Settings::resolve(&Options::defaults()).unwrap();
        assert!(bare.needed_checkpoint().is_err());
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
        let selection = &settings.selection;
        assert!(selection.selects("model.layers.1.mlp.up_proj"));
        assert!(!selection.selects("model.layers.1.self_attn.o_proj"));
        assert!(!selection.selects("model.embed_tokens"));
        assert!(selection.selects("lm_head"), "named in full");
        assert_eq!(settings.ranks.of("model.layers.1.mlp.up_proj"), 8);
        assert_eq!(settings.ranks.of("model.layers.0.mlp.up_proj"), 4);
        assert_eq!(settings.ranks.of("model.layers.0.self_attn.q_proj"), 32);
    }
}
