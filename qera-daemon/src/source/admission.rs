//! Decides by a shard's header, before a row is read, whether its content fits this checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use qera_core::dtype::FloatDtype;
use qera_core::reconstruct::Method;

use crate::disk::identity::Identity;
use crate::formats::safetensors::header::{Claim, float_dtype};
use crate::settings::weights::Selection;
use crate::source::bad_sum::BadSum;
use crate::source::beside::{Beside, Counting, check_beside};
use crate::source::declared::{check_class, declared_groups};
use crate::source::metadata::{full_precision, linears, model, tp_size};
use crate::source::refusal::{Reason, Refusal};
use crate::source::shard::ShardHeader;
use crate::source::sum_entry::{SumClaims, SumEntry};
use crate::source::tensor_role::{TensorRole, role_of};
use crate::weights::Weights;
use crate::weights::layers::Layer;
use crate::weights::passed_over::Why;
use crate::weights::recording::Recording;
use crate::weights::sites::{Sites, is_row_parallel};

/// A tensor that will be read.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Module path.
    pub(crate) key: String,
    /// The site that the tensor feeds.
    pub(crate) site: usize,
    /// Element type.
    pub(crate) dtype: FloatDtype,
    /// The number of sequences in a [batch, seq, in_features] tensor; `None` for [rows,
    /// in_features].
    pub(crate) sequences: Option<usize>,
    /// The number of rows, padding included.
    pub(crate) rows: usize,
    /// Width of a row.
    pub(crate) in_features: usize,
    pub(crate) start: u64,
    pub(crate) bytes: usize,
    /// Which rows count, and how much.
    pub(crate) counting: Counting,
}

impl Entry {
    /// Bytes in the file, with the mask or the weights. They are held until the rows are folded.
    #[must_use]
    pub(crate) const fn stored_bytes(&self) -> u64 {
        let of_row = if self.is_weighted() {
            size_of::<f32>()
        } else {
            1
        };
        (self.bytes as u64).saturating_add((of_row as u64).saturating_mul(self.rows as u64))
    }

    /// Whether its rows come with weights.
    #[must_use]
    pub(crate) const fn is_weighted(&self) -> bool {
        matches!(self.counting, Counting::Weights(_))
    }
}

/// A shard whose header fits the run.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// The file.
    pub(crate) path: PathBuf,
    /// The name of the shard.
    pub(crate) name: String,
    /// The tensors that will be read.
    pub(crate) entries: Vec<Entry>,
    /// The sums over rows that will be read.
    pub(crate) sums: Vec<SumEntry>,
    /// For each site, the index of its first tensor among `entries`.
    by_site: BTreeMap<usize, usize>,
    /// Number of keys of known modules that are not selected.
    pub(crate) ignored_keys: usize,
    /// Whether the rows come from the full-precision model, as `qera.source` says.
    pub(crate) full_precision: Option<bool>,
    pub(crate) identity: Identity,
}

impl Admitted {
    /// The tensor that feeds a site; of several the first counts.
    #[must_use]
    pub(crate) fn entry_of(&self, site: usize) -> Option<&Entry> {
        self.entries.get(*self.by_site.get(&site)?)
    }

    /// The sum over rows for a site; of several the first counts.
    #[must_use]
    pub(crate) fn sum_of(&self, site: usize) -> Option<&SumEntry> {
        self.sums.iter().find(|sum| sum.site == site)
    }

    /// The sites that the shard feeds.
    pub(crate) fn sites(&self) -> impl Iterator<Item = usize> {
        let rows = self.entries.iter().map(|entry| entry.site);
        rows.chain(self.sums.iter().map(|sum| sum.site))
    }
}

/// What headers are compared with.
#[derive(Debug, Clone)]
pub(crate) struct Admission<'a> {
    /// The model. Without one, every module is known and has the width that its first shard gave
    /// it.
    pub(crate) weights: Option<&'a Weights>,
    /// Which modules are selected or known to be excluded.
    pub(crate) selection: &'a Selection,
    /// The sites.
    pub(crate) sites: &'a Sites,
    /// What is known of the recorded model.
    pub(crate) recording: &'a Recording,
    /// Whether what is known of the recorded model is fixed.
    pub(crate) fixed: bool,
    /// The method, which decides what sums must contain.
    pub(crate) method: Method,
}

/// The declared groups that each module belongs to.
struct Mates<'a>(BTreeMap<&'a str, Vec<&'a BTreeSet<String>>>);

impl<'a> Mates<'a> {
    fn of(groups: &'a [BTreeSet<String>]) -> Self {
        let mut by_module: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for group in groups {
            for module in group {
                by_module.entry(module).or_default().push(group);
            }
        }
        Self(by_module)
    }
}

/// Where a tensor's rows go.
enum Destination {
    Sites(BTreeSet<usize>),
    /// A known module that is not corrected.
    Nowhere,
}

/// The sites that a key feeds, and whether its own layer is selected.
struct RoutedKey {
    destination: Destination,
    is_selected: bool,
}

impl RoutedKey {
    /// Adds an entry for each site; returns the number of keys that are of no use.
    fn take<T>(
        self,
        to: &mut Vec<T>,
        entry: impl Fn(usize) -> Result<T, Reason>,
    ) -> Result<usize, Reason> {
        let Destination::Sites(sites) = self.destination else {
            return Ok(1);
        };
        let mut ignored = 0;
        for site in sites {
            match entry(site) {
                Ok(entry) => to.push(entry),
                // A layer that is not selected may help by its rows, and does no harm where it
                // cannot.
                Err(_) if !self.is_selected => ignored += 1,
                Err(reason) => return Err(reason),
            }
        }
        Ok(ignored)
    }
}

/// The entries of a header for the sites.
#[derive(Default)]
struct FoundEntries {
    entries: Vec<Entry>,
    sums: Vec<SumEntry>,
    ignored_keys: usize,
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

    /// Checks a header as [`admit`](Self::admit) does, but with an error that does not name the
    /// shard.
    pub(crate) fn check(&self, header: &ShardHeader) -> Result<Admitted, Reason> {
        self.check_model(header)?;
        let by_key: BTreeMap<&str, &Claim> = header
            .claims()
            .iter()
            .map(|c| (c.key.as_str(), c))
            .collect();
        let groups = declared_groups(header, self.recording)?;
        let groups = Mates::of(&groups);
        let tp_size = tp_size(header)?;
        let mut found = FoundEntries::default();
        for claim in header.claims() {
            match role_of(&claim.key) {
                TensorRole::Beside(owner) => check_beside(claim, owner, &by_key)?,
                TensorRole::Rows(key) => {
                    let beside = Beside::of(key, &by_key);
                    let entry = |site| self.entry(claim, site, &beside);
                    let routed = self.routed(key, tp_size, &groups)?;
                    found.ignored_keys += routed.take(&mut found.entries, entry)?;
                }
                TensorRole::Sum(key) => {
                    if self.sites.sketch.is_some() {
                        return Err(BadSum::Sketched { key: key.into() }.into());
                    }
                    let sums = SumClaims::new(header, &by_key, self.method);
                    let width = |site: usize| self.sites.sites[site].in_features;
                    let entry = |site| Ok(sums.entry(key, site, width(site))?);
                    let routed = self.routed(key, tp_size, &groups)?;
                    found.ignored_keys += routed.take(&mut found.sums, entry)?;
                }
            }
        }
        let FoundEntries {
            entries,
            sums,
            ignored_keys,
        } = found;
        let full_precision = full_precision(header)?;
        // Of several entries for a site the first counts.
        let by_site = entries.iter().enumerate().rev();
        Ok(Admitted {
            by_site: by_site.map(|(at, entry)| (entry.site, at)).collect(),
            path: header.path.clone(),
            name: header.name.clone(),
            entries,
            sums,
            ignored_keys,
            full_precision,
            identity: header.identity(),
        })
    }

    /// The sites that a key feeds.
    fn routed(&self, key: &str, tp_size: u64, groups: &Mates<'_>) -> Result<RoutedKey, Reason> {
        let module = self.recording.name(key);
        let destination = self.destination(key, &module, groups)?;
        let goes = matches!(destination, Destination::Sites(_));
        if goes && tp_size > 1 && is_row_parallel(&module) {
            return Err(Reason::TensorParallel {
                key: key.to_owned(),
                tp_size,
            });
        }
        Ok(RoutedKey {
            destination,
            is_selected: self.selection.selects(&module),
        })
    }

    /// Checks that the shard belongs to this model, and agrees with what is known of it.
    fn check_model(&self, header: &ShardHeader) -> Result<(), Reason> {
        if let Some(found) = model(header)
            && let Some(weights) = self.weights
            && !weights.model_names().iter().any(|name| name == found)
        {
            return Err(Reason::OtherModel {
                found: found.into(),
                expected: weights.model_names().to_vec(),
            });
        }
        if !self.fixed {
            return Ok(());
        }
        check_class(header, self.recording)?;
        self.check_linears(header)?;
        let shared = declared_groups(header, self.recording)?;
        let mut shared = shared.into_iter().flatten();
        match shared.find(|module| self.is_late(module)) {
            None => Ok(()),
            Some(module) => Err(Reason::LateLinear { module }),
        }
    }

    /// Whether this is a linear layer that was not named before the list was fixed.
    fn is_late(&self, module: &str) -> bool {
        let why = self.weights.and_then(|w| w.why_passed_over(module));
        why == Some(Why::NotLinear)
    }

    /// Checks that the linear layers that the shard lists are among those that were fixed.
    fn check_linears(&self, header: &ShardHeader) -> Result<(), Reason> {
        for of in linears(header)? {
            let module = self.recording.name(&of.name);
            let layer = self.weights.and_then(|weights| weights.layer(&module));
            let known = layer.map(Layer::listed);
            let known = known.or_else(|| self.recording.linears.listed(&module));
            if let Some(expected) = known.filter(|known| known.merged(of.linear).is_none()) {
                return Err(Reason::OtherLinear {
                    module: of.name,
                    found: of.linear,
                    expected,
                });
            }
            if self.is_late(&module) {
                return Err(Reason::LateLinear { module });
            }
        }
        Ok(())
    }

    /// Where the rows of a key go.
    fn destination(
        &self,
        key: &str,
        module: &str,
        groups: &Mates<'_>,
    ) -> Result<Destination, Reason> {
        let sites = self.sites_of(module, groups);
        if !sites.is_empty() {
            return Ok(Destination::Sites(sites));
        }
        if !self.is_known(key, module) {
            return Err(Reason::UnknownModule { key: key.into() });
        }
        match self.weights.and_then(|w| w.why_passed_over(module)) {
            Some(Why::NotLinear) if self.fixed => Err(Reason::LateLinear {
                module: module.into(),
            }),
            Some(why @ (Why::UnknownOrientation | Why::NotServed)) => {
                let key = key.into();
                Err(Reason::NoLayer { key, why })
            }
            _ => Ok(Destination::Nowhere),
        }
    }

    /// The sites that a key feeds: its own, and those of modules that, as the shard says, read the
    /// same input. That is a single site, unless this was not known yet when sites were formed.
    fn sites_of(&self, module: &str, groups: &Mates<'_>) -> BTreeSet<usize> {
        let own = self.site_of(module);
        let width = |site: usize| self.sites.sites[site].in_features;
        let groups = groups.0.get(module).into_iter().flatten();
        let mates = groups
            .flat_map(|group| group.iter())
            .filter_map(|member| self.site_of(member))
            .filter(|&mate| own.is_none_or(|own| width(own) == width(mate)));
        own.into_iter().chain(mates).collect()
    }

    /// The site that a module's input feeds. The module must be one of the model and have the
    /// site's width; a name alone does not make rows.
    fn site_of(&self, module: &str) -> Option<usize> {
        let site = self.sites.of(module)?;
        let Some(weights) = self.weights else {
            return self.selection.selects(module).then_some(site);
        };
        let width = weights.in_features(module)?;
        (width == self.sites.sites[site].in_features).then_some(site)
    }

    /// Whether a module exists but feeds no selected layer.
    fn is_known(&self, key: &str, module: &str) -> bool {
        self.selection.excludes(key)
            || self.selection.excludes(module)
            || self.weights.is_none_or(|w| w.has_module(module))
    }

    fn entry(&self, claim: &Claim, site: usize, beside: &Beside<'_>) -> Result<Entry, Reason> {
        let in_features = self.sites.sites[site].in_features;
        let dtype = float_dtype(claim.dtype).ok_or_else(|| Reason::WrongDtype {
            key: claim.key.clone(),
            found: claim.dtype.to_string(),
            expected: "F32, F16 or BF16",
        })?;
        let wrong = || Reason::WrongShape {
            key: claim.key.clone(),
            found: claim.shape.clone(),
            in_features,
        };
        let (sequences, rows) = match claim.shape[..] {
            [rows, width] if width == in_features => (None, rows),
            [batch, seq, width] if width == in_features => {
                (Some(batch), batch.checked_mul(seq).ok_or_else(wrong)?)
            }
            _ => return Err(wrong()),
        };
        Ok(Entry {
            key: claim.key.clone(),
            site,
            dtype,
            sequences,
            rows,
            in_features,
            start: claim.start,
            bytes: claim.bytes,
            counting: beside.counting(claim)?,
        })
    }
}
