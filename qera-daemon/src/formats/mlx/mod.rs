//! The two files of an adapter as mlx-lm saves them: reads and writes the names of tensors, and
//! reads the configuration (`config`).

pub(crate) mod config;

use std::collections::BTreeMap;

use crate::formats::safetensors::header::{Claim, Header};

/// Name of the file with the tensors.
pub(crate) const TENSORS: &str = "adapters.safetensors";
/// Name of the configuration.
pub(crate) const CONFIG: &str = "adapter_config.json";

/// A factor: one half of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MlxFactor {
    /// A, [in_features, rank].
    A,
    /// B, [rank, out_features].
    B,
}

/// The two tensors of a module in the file.
#[derive(Debug, Default)]
pub(crate) struct MlxPair {
    /// The tensor `lora_a`.
    pub(crate) a: Option<Claim>,
    /// The tensor `lora_b`.
    pub(crate) b: Option<Claim>,
}

/// The tensors of an adapter.
#[derive(Debug, Default)]
pub(crate) struct MlxTensors {
    /// The pairs, by module.
    pub(crate) pairs: BTreeMap<String, MlxPair>,
    /// The names of all other tensors.
    pub(crate) others: Vec<String>,
}

/// The name of a factor's tensor.
#[must_use]
pub(crate) fn factor_name(module: &str, factor: MlxFactor) -> String {
    let ending = match factor {
        MlxFactor::A => "lora_a",
        MlxFactor::B => "lora_b",
    };
    format!("{module}.{ending}")
}

impl MlxTensors {
    /// Sorts the tensors of a header by module.
    #[must_use]
    pub(crate) fn of(header: Header) -> Self {
        let mut found = Self::default();
        for claim in header.claims {
            let module_before = |ending| claim.key.strip_suffix(ending).map(str::to_owned);
            if let Some(module) = module_before(".lora_a") {
                found.pairs.entry(module).or_default().a = Some(claim);
            } else if let Some(module) = module_before(".lora_b") {
                found.pairs.entry(module).or_default().b = Some(claim);
            } else {
                found.others.push(claim.key);
            }
        }
        found
    }
}
