//! The options as a person writes them, on the command line or in a TOML file: one list for both.
//!
//! Every field is optional here; [`Options::defaults`] is the one place of the defaults, and
//! [`super::Settings::resolve`] turns the merged options into values that cannot be wrong.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use serde::{Deserialize, Deserializer, Serialize};

/// The values of `--method`.
pub(crate) const METHODS: [&str; 6] = [
    "exact",
    "approx",
    "lqer",
    "lqer-mean",
    "zeroquant-v2",
    "w-only",
];
/// The values of `--quantizer`.
pub(crate) const QUANTIZERS: [&str; 15] = [
    "mxint2", "mxint3", "mxint4", "mxint5", "mxint6", "mxint7", "mxint8", "int2", "int3", "int4",
    "int5", "int6", "int7", "int8", "q4-0",
];
/// The values of `--scale-dtype`.
pub(crate) const SCALE_DTYPES: [&str; 3] = ["f16", "bf16", "f32"];
/// The values of `--rounding`.
pub(crate) const ROUNDINGS: [&str; 3] = ["nearest", "feedback", "projected"];
/// The values of `--dtype`.
pub(crate) const FACTOR_DTYPES: [&str; 4] = ["f32", "f16", "bf16", "q8_0"];
/// The values of `--after-convergence`.
pub(crate) const AFTER_CONVERGENCE: [&str; 3] = ["full", "sample", "stop"];
/// The values of `--consume`.
pub(crate) const CONSUMES: [&str; 3] = ["keep", "delete", "move"];
/// The values of `--watch-mode`.
pub(crate) const WATCH_MODES: [&str; 3] = ["auto", "events", "poll"];
/// The values of `--log-format`.
pub(crate) const LOG_FORMATS: [&str; 2] = ["text", "json"];

/// Every option of `qera-daemon`; the TOML keys are the long names without the dashes in front.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Options {
    /// Folder of activation shards (its subfolders are not watched)
    #[arg(long, value_name = "DIR", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) watch: Option<PathBuf>,

    /// The full-precision model: a safetensors file, a folder with model.safetensors or
    /// model.safetensors.index.json, or a GGUF file (F32, F16, BF16); without it only statistics
    /// are gathered
    #[arg(long, value_name = "PATH", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoint: Option<PathBuf>,

    /// The quantized model that is served: a GGUF file of any ggml type (of a split one the first
    /// part), or a folder of compressed-tensors (pack-quantized), GPTQ or AWQ. Without it
    /// --quantizer makes the quantized weights
    #[arg(long, value_name = "PATH", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quantized: Option<PathBuf>,
    /// A file that llama.cpp's llama-imatrix wrote (GGUF or legacy), with E[x^2] of every layer;
    /// repeatable, the files add up. Without --watch every layer is solved from it (needs --method
    /// approx); with --watch, only layers for which no shard has rows yet
    #[arg(long, value_name = "FILE", global = true)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) imatrix: Vec<PathBuf>,

    /// Where generations go; locked while in use [default: qera-out]. For export: the FILE to write
    #[arg(long, value_name = "DIR", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) out: Option<PathBuf>,

    /// Statistics, journal and evidence, from which every run continues [default: OUT/state]
    #[arg(long, value_name = "DIR", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<PathBuf>,

    /// Go on although the state is damaged and shards that it held are gone: their rows are lost.
    /// Files of the state that stay unreadable, and such shards that it counts, are given up as
    /// well
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) accept_loss: Option<bool>,

    /// Fold what is new in the folder, solve, publish, exit; without it the folder is watched until
    /// a signal
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) once: Option<bool>,

    /// Watch until every layer whose input has rows has converged, publish, exit
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until_converged: Option<bool>,

    /// With --until-converged: also wait for layers for which no shard has rows yet
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) require_all: Option<bool>,

    /// A layer has converged when half as many rows again would lower its error by less than this
    /// share [default: 0.01]
    #[arg(long, value_name = "T", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tolerance: Option<f64>,

    /// What happens to the rows of an input whose layers have all converged, until new rows show a
    /// drift: full folds them as before, sample folds one block of sixteen, stop folds none; no
    /// effect with --once, which has no solve points [default: full]
    #[arg(long, value_parser = PossibleValuesParser::new(AFTER_CONVERGENCE), global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after_convergence: Option<String>,

    /// A folder without new shards for so long, and for as long as the last such solve took, is
    /// solved and published, however small the gain [default: 10]
    #[arg(long, value_name = "SECONDS", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle_publish: Option<f64>,

    /// What happens to a shard's file once the state holds its rows; move: to WATCH/.consumed/
    /// [default: keep]
    #[arg(long, value_parser = PossibleValuesParser::new(CONSUMES), global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) consume: Option<String>,

    /// How the folder is watched; auto polls where the file system reports no events [default:
    /// auto]
    #[arg(long, value_parser = PossibleValuesParser::new(WATCH_MODES), global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) watch_mode: Option<String>,

    /// Seconds after which the folder is listed again, whatever the events say [default: 30]
    #[arg(long, value_name = "SECONDS", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rescan_interval: Option<f64>,

    /// While more bytes of shards than this wait to be taken, the file WATCH/.qera-pause asks
    /// producers to pause; not with --once [default: 16GiB]
    #[arg(long, value_name = "SIZE", global = true)]
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "text_or_number"
    )]
    pub(crate) pause_above: Option<String>,

    /// How many generations are kept, at least 3; older ones are removed, never the current one
    /// [default: 8]
    #[arg(long, value_name = "N", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep_generations: Option<u32>,

    /// Shell command after each publication, with QERA_GENERATION, QERA_PATH and QERA_CURRENT;
    /// retried, never fatal
    #[arg(long, value_name = "CMD", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) on_publish: Option<String>,

    /// vllm=URL[,name=qera][,canary=FILE][,path=PREFIX][,names=generation][,poll=SECONDS]: hands
    /// each generation to this server, and makes sure that it serves it; repeatable, one for each
    /// replica. canary: a text on which no generation may be 1 % worse; path: the path that --out
    /// has on the server
    #[arg(long, value_name = "SERVER", global = true)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) notify: Vec<String>,
    /// File with the token of the servers of --notify
    #[arg(long, value_name = "FILE", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) notify_token_file: Option<PathBuf>,

    /// How the low-rank term is computed [default: exact]
    #[arg(long, value_parser = PossibleValuesParser::new(METHODS), global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<String>,

    /// What is gathered of the inputs: full, R; sketch=L, the principal L - 1 directions of each
    /// layer's output errors, where they take less than R (without =L four times the rank; needs
    /// --checkpoint and --rounding nearest); diagonal, E[x^2]. Belongs to the state
    /// [default: what --method needs]
    #[arg(long, value_name = "full|sketch[=L]|diagonal", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) statistics: Option<String>,

    /// The format of the quantized weights: mxint, integers that share a power of two; int,
    /// integers with a free scale; q4-0, GGUF's Q4_0 [default: mxint4]
    #[arg(long, value_parser = PossibleValuesParser::new(QUANTIZERS), global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quantizer: Option<String>,

    /// Elements that share one exponent or scale, along in_features; for int 32, 64 or 128, for
    /// q4-0 32 [default: 32]
    #[arg(long, value_name = "N", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) block_size: Option<u32>,

    /// Type of the scales of int2 to int8 [default: f16]
    #[arg(long, value_parser = PossibleValuesParser::new(SCALE_DTYPES), global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scale_dtype: Option<String>,

    /// Gives each block of int2 to int8 a zero point, so that its levels need not lie around 0
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) zero_points: Option<bool>,

    /// How the weights are rounded: nearest, to the nearest level; feedback, so that the errors of
    /// a layer's inputs make up for each other; projected, so that the error is one that the
    /// adapter can take off. The latter two need --method exact and write OUT/base [default:
    /// nearest]
    #[arg(long, value_parser = PossibleValuesParser::new(ROUNDINGS), global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rounding: Option<String>,

    /// For --rounding: how far the inputs' autocorrelation R is shrunk to its diagonal: auto (tried
    /// on held-out rows), or a number from 0 to 1 [default: 3 m / (3 m + N) for m in_features and N
    /// rows]
    #[arg(long, value_name = "auto|A", global = true)]
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "text_or_number"
    )]
    pub(crate) rounding_shrinkage: Option<String>,

    /// With --rounding projected: how much the base's error without the adapter counts, from 0 to
    /// 1; with 0 the base is useless on its own [default: 0.01]
    #[arg(long, value_name = "B", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) base_share: Option<f64>,

    /// With --rounding: the number of rows after which a layer is rounded, once; until then it has
    /// no correction. Refused with --once and `solve`, which take the rows that are there [default:
    /// 4096, or 4 in_features if that is more]
    #[arg(long, value_name = "ROWS", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) round_after: Option<u64>,

    /// `solve` with --rounding: round again in place of taking the state's rounded weights
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) round_again: Option<bool>,

    /// With --rounding: take rounded weights that were made for a higher rank
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lower_rank: Option<bool>,

    /// Rank of the low-rank term [default: 32]
    #[arg(long, value_name = "K", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rank: Option<u32>,

    /// Rank of the layers that match GLOB; repeatable, the last match counts
    #[arg(long, value_name = "GLOB=K", global = true)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rank_for: Vec<String>,

    /// How far the inputs' autocorrelation R is shrunk to its diagonal, because few rows say little
    /// of it: auto, or a number from 0 (QERA-exact) to 1 (QERA-approx) [default: auto]
    #[arg(long, value_name = "auto|A", global = true)]
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "text_or_number"
    )]
    pub(crate) shrinkage: Option<String>,

    /// Translates the shards' names to the checkpoint's: PATTERN matches the first dotted parts of
    /// a recorded name, * one part; repeatable, the first rule that matches counts [default: found
    /// out, where one prefix fits every name]
    #[arg(long, value_name = "PATTERN=REPLACEMENT", global = true)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) map: Vec<String>,

    /// Correct only the linear layers that match; a layer that is named in full is taken for a
    /// linear one; repeatable [default: all linear layers]
    #[arg(long, value_name = "GLOB", global = true)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) include: Vec<String>,

    /// Do not correct the layers that match; repeatable (lm_head and embeddings are never corrected
    /// unless --include names one in full)
    #[arg(long, value_name = "GLOB", global = true)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) exclude: Vec<String>,

    /// Leave out layers with NaN or infinite weights, or of a type that is not read, instead of
    /// refusing the checkpoint; they stay as they are
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) skip_broken: Option<bool>,

    /// Go on in an output folder and a state that belong to another checkpoint: statistics stay,
    /// evidence begins anew
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) new_checkpoint: Option<bool>,

    /// Also write the quantized weights, in these forms: hf, an ordinary Hugging Face checkpoint in
    /// OUT/base (also without a value, and with true); compressed-tensors, packed for vLLM and
    /// SGLang, in OUT/base-compressed-tensors; gguf, where --checkpoint is a GGUF, a copy of it
    /// with ggml's blocks for llama.cpp, in OUT/base-gguf; false: none. The form follows a '=':
    /// --emit-base=gguf
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "FORM,...", global = true)]
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "text_or_list"
    )]
    pub(crate) emit_base: Option<String>,

    /// The forms in which adapters are written: peft (vLLM, SGLang, Transformers), gguf (llama.cpp,
    /// Ollama: adapter.gguf), mlx (mlx-lm: mlx/) [default: gguf where the quantized weights are a
    /// GGUF (--quantized FILE, OUT/base-gguf), else peft]
    #[arg(long, value_name = "FORM,...", global = true)]
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "text_or_list"
    )]
    pub(crate) format: Option<String>,

    /// Write each layer with the rank that it uses, and not padded with zeros to the largest rank:
    /// smaller, but SGLang and TGI do not read it; mlx has one rank for all, and stays padded
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ragged: Option<bool>,

    /// Type of the adapter's numbers, q8_0 with --format gguf alone; a layer whose error would grow
    /// by more than 0.1 % is written in a wider type [default: f16]
    #[arg(long, value_parser = PossibleValuesParser::new(FACTOR_DTYPES), global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dtype: Option<String>,

    /// Memory that the run may plan for: bytes (4GiB, 800MB, 123456), or a share of what is
    /// available to the process (80%) [default: 80%]
    #[arg(long, value_name = "SIZE", global = true)]
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "text_or_number"
    )]
    pub(crate) memory_budget: Option<String>,

    /// Memory for the rows by which corrections are chosen and judged (1GiB, 800MB, 123456), shared
    /// out among the layers' inputs by their widths, at least 256 bytes a channel; belongs to the
    /// state [default: 1GiB]
    #[arg(long, value_name = "SIZE", global = true)]
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "text_or_number"
    )]
    pub(crate) window_memory: Option<String>,

    /// Worker threads [default: all cores]
    #[arg(long, value_name = "N", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) threads: Option<u32>,

    /// Instructions that accumulate and solve; the results of all agree within the same bound
    /// [default: auto, the one measured as fastest on CPUs like this one]
    #[arg(
        long,
        value_name = "auto|portable|avx2|avx512|avx512-bf16|amx-bf16|neon",
        global = true
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<String>,

    /// Device that sums rows and solves layers: auto, the first CUDA device that passes a
    /// self-test, for what is large enough to be worth it; cpu, none, and no library is looked for;
    /// cuda or cuda:N, that device, or the run is refused. What does not fit there, or fails there,
    /// is computed on the CPU [default: auto]
    #[arg(long, value_name = "auto|cpu|cuda|cuda:N", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,

    /// Memory of the device that may be used, libraries and all: bytes (8GiB, 800MB, 123456), or a
    /// share of what is free there when the run begins (80%) [default: 80%]
    #[arg(long, value_name = "SIZE", global = true)]
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "text_or_number"
    )]
    pub(crate) device_memory: Option<String>,

    /// Form of the messages on standard error [default: text]
    #[arg(long, value_parser = PossibleValuesParser::new(LOG_FORMATS), global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_format: Option<String>,
}

impl Options {
    /// What it means that an option without a default is not given.
    pub(crate) const WITHOUT_DEFAULT: [(&str, &str); 19] = [
        ("base-share", "0.01, with --rounding projected"),
        ("checkpoint", "none"),
        ("exclude", "lm_head and embeddings"),
        ("format", "gguf where W~ is a GGUF, else peft"),
        ("imatrix", "none"),
        ("include", "all linear layers"),
        ("map", "found out"),
        ("notify", "none"),
        ("notify-token-file", "none"),
        ("on-publish", "none"),
        ("quantized", "none, --quantizer makes the quantized weights"),
        ("rank-for", "none"),
        ("round-after", "4096, or 4 in_features if that is more"),
        ("rounding-shrinkage", "by the numbers of rows and inputs"),
        ("scale-dtype", "f16, with --quantizer int2 to int8"),
        ("state", "OUT/state"),
        ("statistics", "what --method needs"),
        ("threads", "all cores"),
        ("watch", "none"),
    ];

    /// Options that say how W becomes W~.
    pub(crate) const OF_THE_QUANTIZER: [&str; 3] = ["quantizer", "block-size", "rounding"];

    /// The defaults. Options that have none (`watch`, `checkpoint`, `threads`, the lists) stay
    /// empty.
    #[must_use]
    pub(crate) fn defaults() -> Self {
        let text = |s: &str| Some(s.to_owned());
        Self {
            out: Some(PathBuf::from("qera-out")),
            accept_loss: Some(false),
            once: Some(false),
            until_converged: Some(false),
            require_all: Some(false),
            tolerance: Some(0.01),
            after_convergence: text("full"),
            idle_publish: Some(10.0),
            consume: text("keep"),
            watch_mode: text("auto"),
            rescan_interval: Some(30.0),
            pause_above: text("16GiB"),
            keep_generations: Some(8),
            method: text("exact"),
            quantizer: text("mxint4"),
            block_size: Some(32),
            zero_points: Some(false),
            rounding: text("nearest"),
            round_again: Some(false),
            lower_rank: Some(false),
            rank: Some(32),
            shrinkage: text("auto"),
            skip_broken: Some(false),
            new_checkpoint: Some(false),
            emit_base: text("false"),
            ragged: Some(false),
            dtype: text("f16"),
            memory_budget: text("80%"),
            window_memory: text("1GiB"),
            kernel: text("auto"),
            device: text("auto"),
            device_memory: text("80%"),
            log_format: text("text"),
            ..Self::default()
        }
    }
}

/// Accepts `emit-base = true`, `"hf"` and `["hf", "compressed-tensors"]` alike.
fn text_or_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum TextOrList {
        Switch(bool),
        Text(String),
        List(Vec<String>),
    }
    Ok(Some(match TextOrList::deserialize(deserializer)? {
        TextOrList::Switch(on) => on.to_string(),
        TextOrList::Text(text) => text,
        TextOrList::List(list) => list.join(","),
    }))
}

/// Accepts `shrinkage = 0.2` and `shrinkage = "auto"` alike.
fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum TextOrNumber {
        Text(String),
        Integer(i64),
        Float(f64),
    }
    Ok(Some(match TextOrNumber::deserialize(deserializer)? {
        TextOrNumber::Text(s) => s,
        TextOrNumber::Integer(i) => i.to_string(),
        TextOrNumber::Float(f) => f.to_string(),
    }))
}
