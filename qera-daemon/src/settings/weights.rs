//! Settings of the weights: the checkpoint, which layers are corrected with which rank, and how W~
//! is made.

use std::path::{Path, PathBuf};

use globset::GlobMatcher;
use qera_core::quantize::Grid;

use crate::error::Fatal;
use crate::settings::dotted::last_part;
use crate::settings::name_map::{MapRule, NameMap};
use crate::settings::options::Options;
use crate::settings::parse::{at_least, glob, globs};
use crate::settings::weight_format::WeightFormat;

/// Last names of output layers, which are not corrected unless `--include` names one in full.
const HEADS: [&str; 3] = ["lm_head", "embed_out", "output_projection"];
/// Names of heads that PEFT trains and saves whole for the task types of classifiers, so that it
/// would not read an adapter's factors for them.
const CLASSIFIERS: [&str; 3] = ["classifier", "score", "qa_outputs"];
/// Last names of embeddings, whose rows are looked up and not multiplied.
const EMBEDDINGS: [&str; 19] = [
    "embed_tokens",
    "embed_positions",
    "embed_in",
    "embeddings",
    "embedding",
    "word_embeddings",
    "word_embeddings_layernorm",
    "position_embeddings",
    "position_embedding",
    "token_type_embeddings",
    "tok_embeddings",
    "wte",
    "wpe",
    "tokens_embed",
    "positions_embed",
    "shared",
    "token_embd",
    "position_embd",
    "token_types",
];
/// A table of distances that T5 stores like a linear layer.
const RELATIVE_POSITIONS: &str = "relative_attention_bias";

/// Whether a module is an embedding by its last name.
#[must_use]
pub(crate) fn is_embedding(module: &str) -> bool {
    EMBEDDINGS.contains(&last_part(module)) || last_part(module) == RELATIVE_POSITIONS
}

/// Whether a module is a classifier's head, or a part of one (RoBERTa's has two layers).
#[must_use]
pub(crate) fn is_classifier(module: &str) -> bool {
    module.split('.').any(|part| CLASSIFIERS.contains(&part))
}

/// Whether a module is an output layer by its name, whatever else the model holds.
#[must_use]
pub(crate) fn is_head(module: &str) -> bool {
    HEADS.contains(&last_part(module)) || module == "output"
}

/// Whether a module is left out unless `--include` names it in full.
fn is_left_out_by_default(module: &str) -> bool {
    is_embedding(module) || is_classifier(module) || is_head(module)
}

/// Settings of the weights.
#[derive(Debug, Clone)]
pub(crate) struct WeightsSettings {
    /// The checkpoint: a safetensors file or folder, or a GGUF file. Without one, statistics are
    /// gathered and nothing is solved.
    pub(crate) checkpoint: Option<PathBuf>,
    /// The model that W~ is read from, if it is not made by this run.
    pub(crate) quantized: Option<PathBuf>,
    /// The grid by which W~ is made where it is not given.
    pub(crate) quantizer: Grid,
    /// The rank of each layer.
    pub(crate) ranks: Ranks,
    /// Which layers are corrected.
    pub(crate) selection: Selection,
    /// Whether layers with NaN or infinite weights, or of a type that is not read, are left out.
    pub(crate) skip_broken: bool,
    /// Whether an output folder or a state of another checkpoint is accepted.
    pub(crate) new_checkpoint: bool,
    /// The map from recorded names to the checkpoint's; `None` where it has to be found out.
    pub(crate) map: Option<NameMap>,
}

/// The ranks of `--rank` and `--rank-for`.
#[derive(Debug, Clone)]
pub(crate) struct Ranks {
    default: usize,
    overrides: Vec<RankFor>,
}

/// A `--rank-for GLOB=K`.
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
    /// The rank that was asked for a layer: by the last `--rank-for` that matches it, or else by
    /// `--rank`.
    #[must_use]
    pub(crate) fn of(&self, layer: &str) -> usize {
        self.overrides
            .iter()
            .rev()
            .find(|of| of.layers.is_match(layer))
            .map_or(self.default, |of| of.rank)
    }

    /// The largest rank that is asked for any layer.
    #[must_use]
    pub(crate) fn largest(&self) -> usize {
        let overrides = self.overrides.iter().map(|of| of.rank);
        overrides.fold(self.default, usize::max)
    }

    /// A pattern of `--rank-for` that matches none of the layers.
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

/// The selection by `--include` and `--exclude`.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    /// The patterns of `--include`; if there are none, everything that is not excluded is included.
    pub(crate) include: Vec<GlobMatcher>,
    exclude: Vec<GlobMatcher>,
}

/// What the options say about a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// An `--include` names it in full.
    Named,
    /// It may be corrected.
    Allowed,
    /// No `--include` matches it.
    NotIncluded,
    /// `--exclude` matches it.
    Excluded,
    /// It is an output layer or an embedding, and no `--include` names it in full.
    LeftOutByDefault,
}

impl Selection {
    /// What the options say about this module.
    #[must_use]
    pub(crate) fn wanted(&self, module: &str) -> Wanted {
        if self.is_left_out(module) {
            return Wanted::Excluded;
        }
        if self.include.iter().any(|glob| glob.glob().glob() == module) {
            return Wanted::Named;
        }
        if is_left_out_by_default(module) {
            return Wanted::LeftOutByDefault;
        }
        if !self.include.is_empty() && !self.include.iter().any(|glob| glob.is_match(module)) {
            return Wanted::NotIncluded;
        }
        Wanted::Allowed
    }

    /// Whether a given `--exclude` pattern matches this module.
    #[must_use]
    pub(crate) fn is_left_out(&self, module: &str) -> bool {
        self.exclude.iter().any(|glob| glob.is_match(module))
    }

    /// The patterns of `--exclude` that match none of these modules.
    pub(crate) fn idle<'a>(&'a self, modules: &'a [&str]) -> impl Iterator<Item = &'a str> {
        let globs = self.exclude.iter();
        globs
            .filter(|glob| !modules.iter().any(|module| glob.is_match(module)))
            .map(|glob| glob.glob().glob())
    }

    /// Whether this module is excluded, by a pattern or by default.
    #[must_use]
    pub(crate) fn excludes(&self, module: &str) -> bool {
        matches!(
            self.wanted(module),
            Wanted::Excluded | Wanted::LeftOutByDefault
        )
    }

    /// Whether this module is to be corrected, judged by its name.
    #[must_use]
    pub(crate) fn selects(&self, module: &str) -> bool {
        matches!(self.wanted(module), Wanted::Named | Wanted::Allowed)
    }
}

fn map_rules(options: &[String]) -> Result<Option<NameMap>, Fatal> {
    let rules = options.iter().map(|text| MapRule::parse(text));
    let rules = rules.collect::<Result<Vec<_>, _>>()?;
    Ok((!rules.is_empty()).then(|| NameMap::new(false, rules)))
}

/// Refuses options that would make another W~ than the given one.
fn refuse_beside_quantized(options: &Options) -> Result<(), Fatal> {
    if options.checkpoint.is_none() {
        return Err(Fatal::Usage(
            "--quantized: --checkpoint PATH is needed beside it: the weights in full precision, \
             which it is compared with"
                .into(),
        ));
    }
    let set = |switch: Option<bool>| switch.unwrap_or_default();
    let emits_base = options.emit_base.as_deref().is_some_and(|of| of != "false");
    let given = [
        ("quantizer", options.quantizer.is_some()),
        ("block-size", options.block_size.is_some()),
        ("scale-dtype", options.scale_dtype.is_some()),
        ("zero-points", set(options.zero_points)),
        ("rounding", options.rounding.is_some()),
        ("rounding-shrinkage", options.rounding_shrinkage.is_some()),
        ("base-share", options.base_share.is_some()),
        ("round-after", options.round_after.is_some()),
        ("round-again", set(options.round_again)),
        ("lower-rank", set(options.lower_rank)),
        ("emit-base", emits_base),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(Fatal::Usage(format!(
            "--{option}: the quantized weights are those of --quantized, and no others are made"
        ))),
        None => Ok(()),
    }
}

fn quantizer(options: &Options) -> Result<Grid, Fatal> {
    let defaults = Options::defaults();
    let options = match options.quantized {
        Some(_) => &defaults,
        None => options,
    };
    let format = WeightFormat::resolve(options)?;
    format.grid().map_err(|e| {
        let (name, block_size) = (options.quantizer.as_deref(), options.block_size);
        Fatal::Usage(format!(
            "--quantizer {} --block-size {}: {e}",
            name.unwrap_or_default(),
            block_size.unwrap_or_default()
        ))
    })
}

impl WeightsSettings {
    /// Checks the options of this part.
    ///
    /// # Errors
    /// [`Fatal::Usage`].
    pub(crate) fn resolve(options: &Options) -> Result<Self, Fatal> {
        let default_rank = options.rank.unwrap_or_default() as usize;
        at_least("rank", default_rank, 1)?;
        if options.quantized.is_some() {
            refuse_beside_quantized(options)?;
        }
        let overrides = options.rank_for.iter().map(|text| RankFor::parse(text));
        Ok(Self {
            checkpoint: options.checkpoint.clone(),
            quantized: options.quantized.clone(),
            quantizer: quantizer(options)?,
            ranks: Ranks {
                default: default_rank,
                overrides: overrides.collect::<Result<_, _>>()?,
            },
            selection: Selection {
                include: globs("include", &options.include)?,
                exclude: globs("exclude", &options.exclude)?,
            },
            skip_broken: options.skip_broken.unwrap_or_default(),
            new_checkpoint: options.new_checkpoint.unwrap_or_default(),
            map: map_rules(&options.map)?,
        })
    }

    /// The checkpoint, for a command that needs one.
    ///
    /// # Errors
    /// [`Fatal::Usage`] where no checkpoint was given.
    pub(crate) fn needed_checkpoint(&self) -> Result<&Path, Fatal> {
        self.checkpoint.as_deref().ok_or_else(|| {
            Fatal::Usage(
                "--checkpoint PATH is needed: the weights that the adapter corrects".into(),
            )
        })
    }
}
