//! Which modules the recorded model calls linear layers: those that `qera.linears` lists, and those
//! whose inputs were recorded.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::settings::name_map::NameMap;

/// Modules that are linear layers by the shards' word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Linears {
    /// What `qera.linears` says of each.
    listed: BTreeMap<String, ListedLinear>,
    /// Modules that have rows, or that `qera.shares` names.
    seen: BTreeSet<String>,
}

/// A linear layer as the tap describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListedLinear {
    /// Width of its input.
    #[serde(rename = "in")]
    pub(crate) in_features: usize,
    /// Width of its output.
    #[serde(rename = "out")]
    pub(crate) out_features: usize,
    /// Whether its weight is stored [in_features, out_features].
    #[serde(default)]
    pub(crate) transposed: bool,
}

impl ListedLinear {
    /// The shape in which its weight is stored.
    #[must_use]
    pub(crate) const fn stored_shape(self) -> [usize; 2] {
        match self.transposed {
            true => [self.in_features, self.out_features],
            false => [self.out_features, self.in_features],
        }
    }
}

impl Linears {
    /// Takes what a shard lists; returns what an earlier one said of the same module, where that
    /// differs, and stays as it is then.
    pub(crate) fn list(&mut self, module: String, of: ListedLinear) -> Option<ListedLinear> {
        let known = *self.listed.entry(module).or_insert(of);
        (known != of).then_some(known)
    }

    /// A module whose input was recorded.
    pub(crate) fn see(&mut self, module: String) {
        self.seen.insert(module);
    }

    /// Whether a shard said that this is a linear layer.
    #[must_use]
    pub(crate) fn names(&self, module: &str) -> bool {
        self.listed.contains_key(module) || self.seen.contains(module)
    }

    /// Whether no shard has said anything.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.listed.is_empty() && self.seen.is_empty()
    }

    /// What the tap says of it.
    #[must_use]
    pub(crate) fn listed(&self, module: &str) -> Option<ListedLinear> {
        self.listed.get(module).copied()
    }

    /// Modules that have rows, or share some.
    pub(crate) fn seen(&self) -> impl Iterator<Item = &str> {
        self.seen.iter().map(String::as_str)
    }

    /// Under the checkpoint's names.
    #[must_use]
    pub(crate) fn renamed(&self, names: &NameMap) -> Self {
        let listed = self.listed.iter();
        Self {
            listed: listed.map(|(name, of)| (names.apply(name), *of)).collect(),
            seen: self.seen.iter().map(|name| names.apply(name)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::name_map::MapRule;

    #[test]
    fn the_first_word_counts_and_another_is_seen() {
        let one = ListedLinear {
            in_features: 2,
            out_features: 3,
            transposed: true,
        };
        let mut linears = Linears::default();
        assert_eq!(linears.list("a".into(), one), None);
        assert_eq!(linears.list("a".into(), one), None);
        let other = ListedLinear {
            transposed: false,
            ..one
        };
        assert_eq!(linears.list("a".into(), other), Some(one));
        assert_eq!(linears.listed("a").unwrap().stored_shape(), [2, 3]);
        assert_eq!(other.stored_shape(), [3, 2]);
        linears.see("b".into());
        assert!(linears.names("a") && linears.names("b") && !linears.names("c"));
        let names = NameMap::new(false, vec![MapRule::prefix("", "model")]);
        let renamed = linears.renamed(&names);
        assert!(renamed.names("model.a") && renamed.names("model.b") && !renamed.names("a"));
    }
}
