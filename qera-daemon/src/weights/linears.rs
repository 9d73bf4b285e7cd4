//! Which modules of the recorded model are linear layers: those that `qera.linears` lists, and
//! those whose inputs were recorded.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::settings::name_map::NameMap;

/// Modules that are linear layers according to the shards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Linears {
    /// The entries of `qera.linears`, by the modules' names.
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
    /// Whether the weight is stored [in_features, out_features]; `None` where that is not said.
    #[serde(default)]
    pub(crate) transposed: Option<bool>,
}

impl ListedLinear {
    /// This description, completed by the orientation that a weight of this shape must have where
    /// it is not square. `None` where the shape does not fit.
    #[must_use]
    pub(crate) fn lying_as(self, shape: &[usize]) -> Option<Self> {
        let (m, n) = (self.in_features, self.out_features);
        let (straight, turned) = (*shape == [n, m], *shape == [m, n]);
        let transposed = match self.transposed {
            Some(true) if turned => Some(true),
            Some(false) if straight => Some(false),
            None if straight && turned => None,
            None if straight || turned => Some(turned),
            _ => return None,
        };
        Some(Self { transposed, ..self })
    }

    /// Both descriptions joined; `None` where they contradict each other.
    #[must_use]
    pub(crate) fn merged(self, other: Self) -> Option<Self> {
        let same_widths =
            self.in_features == other.in_features && self.out_features == other.out_features;
        let transposed = match (self.transposed, other.transposed) {
            (Some(one), Some(two)) if one != two => return None,
            (one, two) => one.or(two),
        };
        same_widths.then_some(Self { transposed, ..self })
    }
}

impl fmt::Display for ListedLinear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (m, n) = (self.in_features, self.out_features);
        let lies = match self.transposed {
            Some(true) => ", transposed",
            Some(false) => ", not transposed",
            None => "",
        };
        write!(f, "{m} in, {n} out{lies}")
    }
}

impl Linears {
    /// Adds what a shard lists for a module. If an earlier shard said otherwise, that stays, and is
    /// returned.
    pub(crate) fn list(&mut self, module: String, of: ListedLinear) -> Option<ListedLinear> {
        let known = self.listed.entry(module).or_insert(of);
        match known.merged(of) {
            Some(both) => {
                *known = both;
                None
            }
            None => Some(*known),
        }
    }

    /// Notes a module whose input was recorded.
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

    /// The description that a tap gave of a module.
    #[must_use]
    pub(crate) fn listed(&self, module: &str) -> Option<ListedLinear> {
        self.listed.get(module).copied()
    }

    /// The modules that taps described.
    pub(crate) fn described(&self) -> impl Iterator<Item = &str> {
        self.listed.keys().map(String::as_str)
    }

    /// Every module that a shard names.
    pub(crate) fn all(&self) -> impl Iterator<Item = &str> {
        self.listed.keys().chain(&self.seen).map(String::as_str)
    }

    /// Modules whose rows came, or that share an input.
    pub(crate) fn seen(&self) -> impl Iterator<Item = &str> {
        self.seen.iter().map(String::as_str)
    }

    /// The descriptions under the checkpoint's names.
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
            transposed: Some(true),
        };
        let unsaid = ListedLinear {
            transposed: None,
            ..one
        };
        let mut linears = Linears::default();
        assert_eq!(linears.list("a".into(), unsaid), None);
        assert_eq!(linears.list("a".into(), one), None);
        let other = ListedLinear {
            transposed: Some(false),
            ..one
        };
        assert_eq!(linears.list("a".into(), other), Some(one));
        assert_eq!(linears.listed("a"), Some(one));
        // The shape tells the orientation, unless it is square.
        assert_eq!(unsaid.lying_as(&[2, 3]), Some(one));
        assert_eq!(unsaid.lying_as(&[3, 2]), Some(other));
        assert_eq!(one.lying_as(&[3, 2]), None);
        let square = ListedLinear {
            out_features: 2,
            ..unsaid
        };
        assert_eq!(square.lying_as(&[2, 2]), Some(square));
        linears.see("b".into());
        assert!(linears.names("a") && linears.names("b") && !linears.names("c"));
        let names = NameMap::new(false, vec![MapRule::prefix("", "model")]);
        let renamed = linears.renamed(&names);
        assert!(renamed.names("model.a") && renamed.names("model.b") && !renamed.names("a"));
    }
}
