//! Events about a run as a whole: its start, its shards, its generations.

use core::fmt;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::observe::bits::BitsPerWeight;
use crate::settings::memory_budget::format_bytes;

/// A run, or `solve`, begins.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RunStarted<'a> {
    /// The checkpoint's path.
    pub(crate) checkpoint: String,
    /// The file or folder that W~ is read from; absent where W~ is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quantized: Option<String>,
    /// How the folder is packed that W~ is read from; absent for a GGUF.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) packing: Option<String>,
    /// Number of selected layers.
    pub(crate) layers: usize,
    /// Number of their distinct inputs.
    pub(crate) sites: usize,
    /// Number of shards whose headers fit; for `solve` of those in the statistics.
    pub(crate) shards: usize,
    /// Method name.
    pub(crate) method: &'a str,
    /// Number of threads of each compute stage.
    pub(crate) threads: usize,
    /// Planned peak.
    pub(crate) planned_bytes: u64,
    /// The memory budget.
    pub(crate) budget_bytes: u64,
    /// The device that computes, and why it was chosen.
    pub(crate) device: String,
}

impl fmt::Display for RunStarted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            checkpoint,
            quantized,
            packing,
            layers,
            sites,
            shards,
            method,
            threads,
            planned_bytes,
            budget_bytes,
            device,
        } = self;
        let quantized = quantized.as_ref();
        let quantized = quantized.map_or(String::new(), |file| format!(", quantized {file}"));
        let packing = packing.as_ref();
        let packing = packing.map_or(String::new(), |how| format!(" ({how})"));
        write!(
            f,
            "{checkpoint}{quantized}{packing}: {layers} layers on {sites} sites, {shards} shards; method {method}, {threads} threads, memory {} of {}; {device}",
            format_bytes(*planned_bytes),
            format_bytes(*budget_bytes)
        )
    }
}

/// The run continues from a state.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StateRestored {
    /// The state's folder.
    pub(crate) state: String,
    /// Number of shards in its statistics.
    pub(crate) shards: usize,
    /// Number of shards of the journal that are folded again.
    pub(crate) again: usize,
    /// Whether corrections and evidence of the solve points are continued as well.
    pub(crate) progress: bool,
}

impl fmt::Display for StateRestored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            state,
            shards,
            again,
            progress,
        } = self;
        write!(f, "continuing from {state}: {shards} shards")?;
        if *again > 0 {
            write!(f, ", {again} more are folded again")?;
        }
        if !progress {
            write!(f, "; evidence begins anew with these settings")?;
        }
        Ok(())
    }
}

/// Every layer whose input has rows has converged.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AllLayersConverged {
    /// Number of layers whose input has rows.
    pub(crate) layers: usize,
    /// Number of layers whose input has none.
    pub(crate) starved: usize,
}

impl fmt::Display for AllLayersConverged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layers, starved } = self;
        write!(f, "all {layers} layers that have rows have converged")?;
        if *starved > 0 {
            write!(f, "; {starved} are starved and stay without correction")?;
        }
        Ok(())
    }
}

/// A generation was published.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct GenerationPublished {
    /// The generation's number.
    pub(crate) generation: u64,
    /// The generation's folder.
    pub(crate) path: String,
    /// Number of layers with a correction.
    pub(crate) solved: usize,
    /// Number of solved layers without a correction, because there was nothing to correct or the
    /// method corrects nothing.
    pub(crate) uncorrected: usize,
    /// Number of layers with a correction from an imatrix, until one from rows is there.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) imatrix: usize,
    /// Number of layers whose site has seen no row.
    pub(crate) starved: usize,
    /// Number of layers whose site has too few rows to be solved.
    pub(crate) waiting: usize,
    /// Number of layers that cannot be solved from the rows that came.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) failed: usize,
    /// Number of shards folded.
    pub(crate) shards: usize,
    /// Number of shards set aside.
    pub(crate) quarantined: usize,
    /// Number of shards that a signal left unread.
    pub(crate) unread: usize,
    /// The adapter's rank.
    pub(crate) rank: usize,
    /// What base and adapter cost; absent where no layer is corrected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bits_per_weight: Option<BitsPerWeight>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands it a reference"
)]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl fmt::Display for GenerationPublished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            generation,
            path,
            solved,
            uncorrected,
            imatrix,
            starved,
            waiting,
            failed,
            shards,
            quarantined,
            unread,
            rank,
            bits_per_weight,
        } = self;
        write!(
            f,
            "published generation {generation}: {path} ({solved} layers corrected, "
        )?;
        if *uncorrected > 0 {
            write!(f, "{uncorrected} solved without correction, ")?;
        }
        if *imatrix > 0 {
            write!(f, "{imatrix} by an imatrix, ")?;
        }
        write!(
            f,
            "{starved} starved, adapter rank {rank}; {shards} shards folded, {quarantined} quarantined"
        )?;
        if *waiting > 0 {
            write!(f, ", {waiting} layers waiting for rows")?;
        }
        if *failed > 0 {
            write!(f, ", {failed} layers that cannot be solved")?;
        }
        if *unread > 0 {
            write!(f, ", {unread} left unread")?;
        }
        write!(f, ")")?;
        match bits_per_weight {
            Some(bits) => write!(f, "; {bits}"),
            None => Ok(()),
        }
    }
}

/// `OUT/base` was written. Errors are relative to the output's power, and combined over layers by
/// the geometric mean.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct BaseWritten {
    /// The base's folder.
    pub(crate) path: String,
    /// How W~ was rounded.
    pub(crate) rounding: &'static str,
    /// Number of layers with an error to measure.
    pub(crate) layers: usize,
    /// The error of W~ without its adapter.
    pub(crate) alone: f64,
    /// The error of nearest rounding without an adapter, where W~ was rounded otherwise.
    pub(crate) nearest: Option<f64>,
    /// The error of W~ with its adapter.
    pub(crate) corrected: f64,
    /// The layer whose error is largest when W~ is used without its adapter.
    pub(crate) worst: WorstLayer,
    /// Whether the weights have so few bits that no such base was usable alone.
    #[serde(skip)]
    pub(crate) has_too_few_bits: bool,
}

/// The worst layer of a base.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct WorstLayer {
    /// The layer's name.
    pub(crate) layer: String,
    /// How bad the layer is without the adapter: its error relative to nearest rounding's or, where
    /// it is rounded to nearest, its error.
    pub(crate) badness: f64,
}

impl fmt::Display for BaseWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            rounding,
            layers,
            alone,
            nearest,
            corrected,
            worst: WorstLayer { layer, badness },
            has_too_few_bits,
        } = self;
        write!(
            f,
            "base written: {path} (rounding {rounding}; error {alone:.2e} without adapter, "
        )?;
        if let Some(nearest) = nearest {
            write!(f, "{nearest:.2e} of nearest rounding without adapter, ")?;
        }
        write!(
            f,
            "{corrected:.2e} with it, geometric means of {layers} layers; worst without adapter: {layer}, "
        )?;
        match nearest {
            Some(_) => write!(f, "{badness:.2} times nearest's)")?,
            None => write!(f, "{badness:.2e})")?,
        }
        match has_too_few_bits {
            true => f.write_str("; at 3 bits and fewer no base is usable without its adapter"),
            false => Ok(()),
        }
    }
}

/// `OUT/base-compressed-tensors` was written.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PackedBaseWritten {
    /// The base's folder.
    pub(crate) path: String,
    /// Bits of a code.
    pub(crate) bits: u32,
    /// How many neighbours share a scale.
    pub(crate) group_size: usize,
    /// Number of layers that are packed.
    pub(crate) layers: usize,
    /// Number of layers whose W~ is stored as numbers.
    pub(crate) whole: usize,
    /// Bits of a packed weight, scales included.
    pub(crate) bits_per_weight: f64,
    /// Bits of a number of the whole model.
    pub(crate) bits_per_parameter: f64,
    /// Bytes of all tensors.
    pub(crate) bytes: u64,
    /// Whether vLLM has a kernel for it on CPUs.
    pub(crate) runs_on_cpus: bool,
}

/// `OUT/base-gguf/model.gguf` was written.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct GgufBaseWritten {
    /// The file's path.
    pub(crate) path: String,
    /// Number of layers in each of ggml's types.
    pub(crate) types: BTreeMap<String, usize>,
    /// Bits of a layer's weight, scales included.
    pub(crate) bits_per_weight: f64,
    /// Bits of a number of the whole model.
    pub(crate) bits_per_parameter: f64,
    /// Bytes of all tensors.
    pub(crate) bytes: u64,
}

impl fmt::Display for GgufBaseWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            types,
            bits_per_weight,
            bits_per_parameter,
            bytes,
        } = self;
        write!(f, "base as GGUF written: {path} (")?;
        for (name, layers) in types {
            write!(f, "{layers} layers in {name}, ")?;
        }
        write!(
            f,
            "{bits_per_weight:.2} bits a weight; {bytes} bytes, {bits_per_parameter:.2} bits a parameter)"
        )
    }
}

impl fmt::Display for PackedBaseWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            bits,
            group_size,
            layers,
            whole,
            bits_per_weight,
            bits_per_parameter,
            bytes,
            runs_on_cpus,
        } = self;
        write!(
            f,
            "packed base written: {path} ({layers} layers of {bits} bits in groups of {group_size}, {bits_per_weight:.2} bits a weight, {whole} layers whole; {bytes} bytes, {bits_per_parameter:.2} bits a parameter)"
        )?;
        if !runs_on_cpus {
            write!(
                f,
                "; vLLM serves it on GPUs only: it has no CPU kernel for {bits} bits"
            )?;
        }
        Ok(())
    }
}

/// A generation did not pass its check; `current` still names the one before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct GenerationRejected {
    /// The number that it would have had, which the next generation gets.
    pub(crate) generation: u64,
    /// The first hundred problems of its files.
    pub(crate) problems: Vec<String>,
    /// The number of further problems.
    pub(crate) more: usize,
}

impl fmt::Display for GenerationRejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            generation,
            problems,
            more,
        } = self;
        write!(
            f,
            "generation {generation} is not published: {} problems in its files; {}",
            problems.len() + more,
            problems.join("; ")
        )?;
        if *more > 0 {
            write!(f, "; and {more} more")?;
        }
        Ok(())
    }
}

/// A shard was folded in.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FoldedShard<'a> {
    /// File name.
    pub(crate) shard: &'a str,
    /// Number of rows of its first site.
    pub(crate) rows: usize,
    /// Number of keys of known modules that are not selected.
    pub(crate) ignored_keys: usize,
}

impl fmt::Display for FoldedShard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            shard,
            rows,
            ignored_keys,
        } = self;
        write!(f, "folded {shard}: {rows} rows")?;
        if *ignored_keys > 0 {
            write!(f, "; {ignored_keys} keys of modules not selected ignored")?;
        }
        Ok(())
    }
}
