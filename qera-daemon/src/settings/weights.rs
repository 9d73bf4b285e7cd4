//! What the weights are told: the checkpoint, which of its layers are corrected to which rank, how
//! W~ is made.

use std::path::{Path, PathBuf};

use globset::GlobMatcher;
use qera_core::quantize::Mxint;

use crate::error::Fatal;
use crate::settings::options::{Options, QUANTIZERS};
use crate::settings::parse::{at_least, glob, globs, one_of};

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

/// The weights.
#[derive(Debug, Clone)]
pub(crate) struct WeightsSettings {
    /// Safetensors file or folder; without one, statistics are gathered and nothing is solved.
    pub(crate) checkpoint: Option<PathBuf>,
    /// How W~ is made.
    pub(crate) quantizer: Mxint,
    /// Rank per layer.
    pub(crate) ranks: Ranks,
    /// Which layers.
    pub(crate) selection: Selection,
}

/// `--rank` and `--rank-for`.
#[derive(Debug, Clone)]
pub(crate) struct Ranks {
    default: usize,
    overrides: Vec<RankFor>,
}

/// `--rank-for GLOB=K`.
#[derive(Debug, Clone)]
struct RankFor {
    layers: GlobMatcher,
    rank: usize,
}

impl RankFor {
    fn parse(text: &str) -> Result<Self, Fatal> {
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
        Ok(Self {
            layers: glob("rank-for", pattern)?,
            rank,
        })
    }
}

impl Ranks {
    /// The rank asked for this layer: the last `--rank-for` that matches, else `--rank`.
    #[must_use]
    pub(crate) fn of(&self, layer: &str) -> usize {
        self.overrides
            .iter()
            .rev()
            .find(|of| of.layers.is_match(layer))
            .map_or(self.default, |of| of.rank)
    }

    /// A pattern of `--rank-for` that none of the layers matches.
    #[must_use]
    pub(crate) fn unmatched(&self, layers: &[&str]) -> Option<&str> {
        let idle = |glob: &GlobMatcher| !layers.iter().any(|layer| glob.is_match(layer));
        self.overrides
            .iter()
            .map(|of| &of.layers)
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

impl WeightsSettings {
    /// Checks its options.
    ///
    /// # Errors
    /// [`Fatal::Usage`].
    pub(crate) fn resolve(options: &Options) -> Result<Self, Fatal> {
        let quantizer = one_of("quantizer", options.quantizer.as_deref(), &QUANTIZERS)?;
        let element_bits: u32 = quantizer["mxint".len()..]
            .parse()
            .map_err(|_| Fatal::Usage(format!("--quantizer: '{quantizer}'")))?;
        let block_size = options.block_size.unwrap_or_default() as usize;
        let default_rank = options.rank.unwrap_or_default() as usize;
        at_least("rank", default_rank, 1)?;
        let overrides = options.rank_for.iter().map(|text| RankFor::parse(text));
        Ok(Self {
            checkpoint: options.checkpoint.clone(),
            quantizer: Mxint::new(element_bits, block_size).map_err(|e| {
                Fatal::Usage(format!(
                    "--quantizer {quantizer} --block-size {block_size}: {e}"
                ))
            })?,
            ranks: Ranks {
                default: default_rank,
                overrides: overrides.collect::<Result<_, _>>()?,
            },
            selection: Selection {
                include: globs("include", &options.include)?,
                exclude: globs("exclude", &options.exclude)?,
                default_exclude: globs("exclude", &DEFAULT_EXCLUDES)?,
            },
        })
    }

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
