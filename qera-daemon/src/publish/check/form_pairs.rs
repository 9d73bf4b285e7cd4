//! The pairs of an adapter in one of its forms, under the names that this form has for the layers.

use std::collections::{BTreeMap, BTreeSet};

use crate::publish::check::findings::Findings;
use crate::publish::check::manifest_claims::{LayerClaim, ManifestClaims};
use crate::publish::written::{UnreadPair, WrittenPair};
use crate::settings::publish::AdapterForm;

/// A module's correction, without its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckedPair {
    /// Columns of A.
    pub(crate) in_features: usize,
    /// Rows of B.
    pub(crate) out_features: usize,
    /// Rank.
    pub(crate) rank: usize,
    /// Whether A is all zero.
    pub(crate) a_is_zero: bool,
    /// Whether B is all zero.
    pub(crate) b_is_zero: bool,
}

impl CheckedPair {
    /// Whether A B is zero because a factor is.
    #[must_use]
    pub(crate) const fn is_zero(&self) -> bool {
        self.a_is_zero || self.b_is_zero
    }
}

/// What was found in the files of a form.
#[derive(Debug)]
pub(crate) struct FormPairs {
    /// The form of the adapter.
    pub(crate) form: AdapterForm,
    /// The name of the tensors' file in messages.
    pub(crate) file: String,
    /// Names that have a tensor, be the pair whole or not.
    pub(crate) with_tensors: BTreeSet<String>,
    /// The whole pairs, by name.
    pub(crate) pairs: BTreeMap<String, CheckedPair>,
}

impl FormPairs {
    /// The pairs of files that were not looked into yet.
    #[must_use]
    pub(crate) fn new(form: AdapterForm, file: String) -> Self {
        Self {
            form,
            file,
            with_tensors: BTreeSet::new(),
            pairs: BTreeMap::new(),
        }
    }

    /// Enters a pair, or why it could not be read.
    pub(crate) fn enter(
        &mut self,
        name: &str,
        read: Result<CheckedPair, UnreadPair>,
        findings: &mut Findings,
    ) {
        self.with_tensors.insert(name.to_owned());
        match read {
            Ok(pair) => {
                self.pairs.insert(name.to_owned(), pair);
            }
            Err(unread) if unread.is_right() => {
                findings.not_checked(format!("{}: {unread}", self.file));
            }
            Err(unread) => findings.problem(format!("{}: {unread}", self.file)),
        }
    }

    /// A manifest's layers, under the names that this form has for them.
    #[must_use]
    pub(crate) fn layers_of<'m>(
        &self,
        manifest: &'m ManifestClaims,
    ) -> BTreeMap<&'m str, &'m LayerClaim> {
        let layers = manifest.layers.iter();
        let named = layers.filter_map(|layer| Some((layer.name_in(self.form)?, layer)));
        named.collect()
    }

    /// The pairs under the names of the class that serves the model, for layers that the manifest
    /// knows.
    #[must_use]
    pub(crate) fn served(&self, manifest: &ManifestClaims) -> BTreeMap<String, CheckedPair> {
        let layers = self.layers_of(manifest);
        let served = self.pairs.iter().filter_map(|(name, pair)| {
            let layer = layers.get(name.as_str())?;
            Some((layer.served_as().to_owned(), *pair))
        });
        served.collect()
    }
}

impl CheckedPair {
    /// The description of a pair with these numbers.
    #[must_use]
    pub(crate) fn of(pair: &WrittenPair) -> Self {
        let is_zero = |values: &[f32]| values.iter().all(|value| value.abs() <= 0.0);
        Self {
            in_features: pair.in_features,
            out_features: pair.out_features,
            rank: pair.rank,
            a_is_zero: is_zero(&pair.lora_a),
            b_is_zero: is_zero(&pair.lora_b),
        }
    }
}
