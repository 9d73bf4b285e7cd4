//! Whether what a shard claims fits this checkpoint, decided on its header before a row is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use qera_core::dtype::FloatDtype;
use safetensors::Dtype;

use crate::checkpoint::{Checkpoint, Layer, Shares, Sites};
use crate::settings::Selection;
use crate::tensor_file::{Claim, float_dtype};

use super::{Reason, Refusal, ShardHeader};

const MASK: &str = "::mask";
/// Layers whose input is split over the ranks of a tensor-parallel engine.
const ROW_PARALLEL: [&str; 2] = ["o_proj", "down_proj"];

/// A tensor that will be read.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Module path.
    pub key: String,
    /// Site that it feeds.
    pub site: usize,
    /// Element type.
    pub dtype: FloatDtype,
    /// Rows of each batch: one for [rows, in], `batch` times `seq` for [batch, seq, in].
    pub batches: Vec<usize>,
    /// Whether the batches are sequences of a [batch, seq, in_features] tensor.
    pub sequences: bool,
    /// Width of a row.
    pub in_features: usize,
    pub(super) start: u64,
    pub(super) bytes: usize,
    pub(super) mask_start: Option<u64>,
}

impl Entry {
    /// Rows, padding included.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.batches.iter().sum()
    }
}

/// A shard whose header fits.
#[derive(Debug)]
pub struct Admitted {
    /// The file.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// What will be read.
    pub entries: Vec<Entry>,
    /// Keys of known modules that are not selected.
    pub ignored_keys: usize,
}

/// What a header is held against.
#[derive(Debug)]
pub struct Admission<'a> {
    /// The checkpoint.
    pub checkpoint: &'a Checkpoint,
    /// Names of the model.
    pub model_names: Vec<String>,
    /// Which modules are selected or known to be excluded.
    pub selection: &'a Selection,
    /// The sites.
    pub sites: &'a Sites,
}

impl Admission<'_> {
    /// Checks metadata, keys, types and shapes.
    ///
    /// # Errors
    /// [`Refusal`] with the first thing that does not fit.
    pub fn admit(&self, header: &ShardHeader) -> Result<Admitted, Refusal> {
        self.check(header).map_err(|reason| Refusal {
            shard: header.name.clone(),
            reason,
        })
    }

    fn check(&self, header: &ShardHeader) -> Result<Admitted, Reason> {
        if let Some(found) = header.metadata("qera.model")
            && !self.model_names.iter().any(|name| name == found)
        {
            return Err(Reason::OtherModel {
                found: found.into(),
                expected: self.model_names.clone(),
            });
        }
        let tp_size = tp_size(header)?;
        let masks: BTreeMap<&str, &Claim> = header
            .claims()
            .iter()
            .filter_map(|c| Some((c.key.strip_suffix(MASK)?, c)))
            .collect();
        let mut entries = Vec::new();
        let mut ignored_keys = 0;
        for claim in header.claims() {
            if let Some(owner) = claim.key.strip_suffix(MASK) {
                if !header.claims().iter().any(|c| c.key == owner) {
                    return Err(Reason::MaskWithoutRows {
                        key: claim.key.clone(),
                    });
                }
                continue;
            }
            let leaf = claim.key.rsplit('.').next().unwrap_or_default();
            if tp_size > 1 && ROW_PARALLEL.contains(&leaf) {
                return Err(Reason::TensorParallel {
                    key: claim.key.clone(),
                    tp_size,
                });
            }
            match self.sites.of(&claim.key) {
                Some(site) => {
                    entries.push(self.entry(claim, site, masks.get(claim.key.as_str()).copied())?)
                }
                None if self.is_known(&claim.key) => ignored_keys += 1,
                None => {
                    return Err(Reason::UnknownModule {
                        key: claim.key.clone(),
                    });
                }
            }
        }
        Ok(Admitted {
            path: header.path.clone(),
            name: header.name.clone(),
            entries,
            ignored_keys,
        })
    }

    /// A module that exists but is not corrected.
    fn is_known(&self, module: &str) -> bool {
        self.selection.excludes(module)
            || self
                .checkpoint
                .tensors
                .contains_key(&format!("{module}.weight"))
    }

    fn entry(&self, claim: &Claim, site: usize, mask: Option<&Claim>) -> Result<Entry, Reason> {
        let in_features = self.sites.sites[site].in_features;
        let dtype = float_dtype(claim.dtype).ok_or_else(|| Reason::WrongDtype {
            key: claim.key.clone(),
            found: claim.dtype.to_string(),
            expected: "F32, F16 or BF16",
        })?;
        let batches = match claim.shape[..] {
            [rows, width] if width == in_features => vec![rows],
            // A tensor without rows can claim any number of batches.
            [batch, seq, width] if width == in_features => {
                vec![seq; if seq == 0 { 0 } else { batch }]
            }
            _ => {
                return Err(Reason::WrongShape {
                    key: claim.key.clone(),
                    found: claim.shape.clone(),
                    in_features,
                });
            }
        };
        if let Some(mask) = mask {
            let expected = &claim.shape[..claim.shape.len() - 1];
            if mask.shape != expected {
                return Err(Reason::MaskShape {
                    key: mask.key.clone(),
                    found: mask.shape.clone(),
                    expected: expected.to_vec(),
                });
            }
            if !matches!(mask.dtype, Dtype::U8 | Dtype::BOOL) {
                return Err(Reason::WrongDtype {
                    key: mask.key.clone(),
                    found: mask.dtype.to_string(),
                    expected: "U8",
                });
            }
        }
        Ok(Entry {
            key: claim.key.clone(),
            site,
            dtype,
            batches,
            sequences: claim.shape.len() == 3,
            in_features,
            start: claim.start,
            bytes: claim.bytes,
            mask_start: mask.map(|m| m.start),
        })
    }
}

fn tp_size(header: &ShardHeader) -> Result<u64, Reason> {
    let Some(value) = header.metadata("qera.tp_size") else {
        return Ok(1);
    };
    value.parse().map_err(|_| Reason::Metadata {
        key: "qera.tp_size",
        value: value.into(),
        problem: "not a whole number".into(),
    })
}

/// Adds to `shares` what the shard's metadata `qera.shares` declares: a JSON list of lists of module
/// paths, each list naming modules that read the same input.
///
/// # Errors
/// [`Refusal`] when it cannot be read, overlaps a different group that an earlier shard declared, or
/// joins layers of different in_features; `shares` is then unchanged.
pub fn declared_shares(
    header: &ShardHeader,
    layers: &[Layer],
    shares: &mut Shares,
) -> Result<(), Refusal> {
    let Some(value) = header.metadata("qera.shares") else {
        return Ok(());
    };
    let refuse = |problem: String| Refusal {
        shard: header.name.clone(),
        reason: Reason::Metadata {
            key: "qera.shares",
            value: value.into(),
            problem,
        },
    };
    let groups: Vec<BTreeSet<String>> = serde_json::from_str(value)
        .map_err(|e| refuse(format!("not a list of lists of names: {e}")))?;
    let mut merged = shares.clone();
    for group in groups {
        if let Some(other) = merged
            .iter()
            .find(|other| **other != group && !other.is_disjoint(&group))
        {
            return Err(refuse(format!("overlaps the group {other:?}")));
        }
        let mut members = layers.iter().filter(|layer| group.contains(&layer.name));
        if let Some(first) = members.next()
            && let Some(odd) = members.find(|layer| layer.in_features != first.in_features)
        {
            return Err(refuse(format!(
                "'{}' has in_features {}, '{}' has {}",
                first.name, first.in_features, odd.name, odd.in_features
            )));
        }
        merged.insert(group);
    }
    *shares = merged;
    Ok(())
}
