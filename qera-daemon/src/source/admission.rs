//! Whether what a shard claims fits this checkpoint, decided on its header before a row is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use qera_core::dtype::FloatDtype;
use safetensors::Dtype;

use crate::disk::identity::Identity;
use crate::formats::safetensors::header::{Claim, float_dtype};
use crate::host::second_moment::SecondMomentKind;
use crate::settings::weights::Selection;
use crate::source::metadata::{declared, full_precision, model, refused_shares, tp_size};
use crate::source::refusal::{Reason, Refusal};
use crate::source::shard::ShardHeader;
use crate::weights::Weights;
use crate::weights::layers::Layer;
use crate::weights::sites::{Clash, Shares, Sites, is_row_parallel};

const MASK: &str = "::mask";

/// A tensor that will be read.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Module path.
    pub(crate) key: String,
    /// Site that it feeds.
    pub(crate) site: usize,
    /// Element type.
    pub(crate) dtype: FloatDtype,
    /// Sequences of a [batch, seq, in_features] tensor, `None` for [rows, in_features].
    pub(crate) sequences: Option<usize>,
    /// Rows, padding included.
    pub(crate) rows: usize,
    /// Width of a row.
    pub(crate) in_features: usize,
    pub(crate) start: u64,
    pub(crate) bytes: usize,
    pub(crate) mask_start: Option<u64>,
}

impl Entry {
    /// Bytes in the file, with the mask: what is held of it until it is folded.
    #[must_use]
    pub(crate) const fn stored_bytes(&self) -> u64 {
        (self.bytes + self.rows) as u64
    }
}

/// A shard whose header fits.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// The file.
    pub(crate) path: PathBuf,
    /// Its name.
    pub(crate) name: String,
    /// What will be read.
    pub(crate) entries: Vec<Entry>,
    /// Keys of known modules that are not selected.
    pub(crate) ignored_keys: usize,
    /// What `qera.source` says: whether the rows come from the full-precision model.
    pub(crate) full_precision: Option<bool>,
    pub(crate) identity: Identity,
}

impl Admitted {
    /// The entry that feeds a site; of several, the first counts.
    #[must_use]
    pub(crate) fn entry_of(&self, site: usize) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.site == site)
    }
}

/// What a header is held against.
#[derive(Debug, Clone)]
pub(crate) struct Admission<'a> {
    /// The model; without one, every module is known and has the width that its first shard gave
    /// it.
    pub(crate) weights: Option<&'a Weights>,
    /// Which modules are selected or known to be excluded.
    pub(crate) selection: &'a Selection,
    /// The sites.
    pub(crate) sites: &'a Sites,
}

impl Admission<'_> {
    /// Checks metadata, keys, types and shapes.
    ///
    /// # Errors
    /// [`Refusal`] with the first thing that does not fit.
    pub(crate) fn admit(&self, header: &ShardHeader) -> Result<Admitted, Refusal> {
        self.check(header).map_err(|reason| Refusal {
            shard: header.name.clone(),
            reason,
        })
    }

    fn check(&self, header: &ShardHeader) -> Result<Admitted, Reason> {
        if let Some(found) = model(header)
            && let Some(weights) = self.weights
            && !weights.model_names().iter().any(|name| name == found)
        {
            return Err(Reason::OtherModel {
                found: found.into(),
                expected: weights.model_names().to_vec(),
            });
        }
        let tp_size = tp_size(header)?;
        let by_key: BTreeMap<&str, &Claim> = header
            .claims()
            .iter()
            .map(|c| (c.key.as_str(), c))
            .collect();
        let groups = declared(header)?;
        let mut entries = Vec::new();
        let mut ignored_keys = 0;
        for claim in header.claims() {
            if let Some(owner) = claim.key.strip_suffix(MASK) {
                if !by_key.contains_key(owner) {
                    return Err(Reason::MaskWithoutRows {
                        key: claim.key.clone(),
                    });
                }
                continue;
            }
            let mask = by_key.get(format!("{}{MASK}", claim.key).as_str()).copied();
            let sites = self.sites_of(&claim.key, &groups);
            if sites.is_empty() {
                if !self.is_known(&claim.key) {
                    return Err(Reason::UnknownModule {
                        key: claim.key.clone(),
                    });
                }
                ignored_keys += 1;
                continue;
            }
            if tp_size > 1 && is_row_parallel(&claim.key) {
                return Err(Reason::TensorParallel {
                    key: claim.key.clone(),
                    tp_size,
                });
            }
            for site in sites {
                match self.entry(claim, site, mask) {
                    Ok(entry) => entries.push(entry),
                    // A member that is not selected may help, and does no harm when it cannot.
                    Err(_) if !self.selection.selects(&claim.key) => ignored_keys += 1,
                    Err(reason) => return Err(reason),
                }
            }
        }
        let full_precision = full_precision(header)?;
        Ok(Admitted {
            path: header.path.clone(),
            name: header.name.clone(),
            entries,
            ignored_keys,
            full_precision,
            identity: header.identity(),
        })
    }

    /// The sites that a key feeds: its own, and those of modules that the shard says read the same
    /// input. That is one site, unless it was not yet known that they do when the sites were
    /// grouped.
    fn sites_of(&self, module: &str, groups: &[BTreeSet<String>]) -> BTreeSet<usize> {
        let own = self.site_of(module);
        let width = |site: usize| self.sites.sites[site].in_features;
        let mates = groups
            .iter()
            .filter(|group| group.contains(module))
            .flatten()
            .filter_map(|member| self.site_of(member))
            .filter(|&mate| own.is_none_or(|own| width(own) == width(mate)));
        own.into_iter().chain(mates).collect()
    }

    /// The site that a module's input feeds. The module is one of the model with the site's width:
    /// a name alone does not make rows.
    fn site_of(&self, module: &str) -> Option<usize> {
        let site = self.sites.of(module)?;
        let Some(weights) = self.weights else {
            return self.selection.selects(module).then_some(site);
        };
        let width = weights.in_features(module)?;
        (width == self.sites.sites[site].in_features).then_some(site)
    }

    /// A module that exists but feeds no selected layer.
    fn is_known(&self, module: &str) -> bool {
        self.selection.excludes(module) || self.weights.is_none_or(|w| w.has_module(module))
    }

    fn entry(&self, claim: &Claim, site: usize, mask: Option<&Claim>) -> Result<Entry, Reason> {
        let in_features = self.sites.sites[site].in_features;
        let dtype = float_dtype(claim.dtype).ok_or_else(|| Reason::WrongDtype {
            key: claim.key.clone(),
            found: claim.dtype.to_string(),
            expected: "F32, F16 or BF16",
        })?;
        let (sequences, rows) = match claim.shape[..] {
            [rows, width] if width == in_features => (None, rows),
            // The header's check of the length makes batch * seq a number of rows that the file
            // has.
            [batch, seq, width] if width == in_features => (Some(batch), batch * seq),
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
            sequences,
            rows,
            in_features,
            start: claim.start,
            bytes: claim.bytes,
            mask_start: mask.map(|m| m.start),
        })
    }
}

/// Where there is no checkpoint: makes a site for each selected module of the shard whose input is
/// not known yet.
pub(crate) fn grow(header: &ShardHeader, selection: &Selection, sites: &mut Sites) {
    for claim in header.claims() {
        if let [.., width] = claim.shape[..]
            && claim.shape.len() > 1
            && width > 0
            && !claim.key.ends_with(MASK)
            && selection.selects(&claim.key)
        {
            sites.ensure(&claim.key, width);
        }
    }
}

/// Adds to `shares` what the shard's metadata `qera.shares` declares: a JSON list of lists of
/// module paths, each list naming modules that read the same input. Only admitted shards are asked.
///
/// # Errors
/// [`Refusal`] when it cannot be read, overlaps a different group that an earlier shard declared,
/// or joins layers of different in_features; `shares` is then unchanged.
pub(crate) fn declared_shares(
    header: &ShardHeader,
    layers: &[Layer],
    shares: &mut Shares,
) -> Result<(), Refusal> {
    let refuse = |problem| Refusal {
        shard: header.name.clone(),
        reason: refused_shares(header, problem),
    };
    let groups = declared(header).map_err(|reason| Refusal {
        shard: header.name.clone(),
        reason,
    })?;
    let mut merged = shares.clone();
    for group in &groups {
        merged.join(group).map_err(|Clash { first, second }| {
            refuse(format!(
                "joins '{first}' and '{second}', which belong to different groups of other shards"
            ))
        })?;
    }
    if merged != *shares {
        // Only whether they can be joined is asked.
        let sites = Sites::group(layers, &merged, SecondMomentKind::Diagonal);
        sites.map_err(|e| refuse(e.to_string()))?;
        *shares = merged;
    }
    Ok(())
}
