//! Sites: which layers read the same input, so that its statistics are gathered once.
//!
//! In a Llama block q, k, v read the output of one norm and gate, up that of another: four sites
//! for seven layers. Names decide; what the table does not know is a site of its own, unless the
//! shards' metadata `qera.shares` joins it. A shard that gives two members of a site different rows
//! is refused ([`crate::source`]), so a wrong entry cannot go unnoticed where the producer writes
//! both.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::host::second_moment::SecondMomentKind;
use crate::weights::layers::Layer;

/// Siblings under one parent that read the same input: (parent's last name, members).
/// An empty parent matches any. Cross-attention is absent on purpose: its q reads another input.
const SHARED_INPUTS: [(&str, &[&str]); 10] = [
    ("self_attn", &["q_proj", "k_proj", "v_proj"]),
    ("attn", &["q_proj", "k_proj", "v_proj"]),
    ("attention", &["q_proj", "k_proj", "v_proj"]),
    ("self_attn", &["q_a_proj", "kv_a_proj_with_mqa"]),
    ("self", &["query", "key", "value"]),
    ("SelfAttention", &["q", "k", "v"]),
    ("attention", &["wq", "wk", "wv"]),
    ("", &["gate_proj", "up_proj"]),
    ("", &["w1", "w3"]),
    ("DenseReluDense", &["wi_0", "wi_1"]),
];

/// Layers whose input is split over the ranks of a tensor-parallel engine.
const ROW_PARALLEL: [&str; 2] = ["o_proj", "down_proj"];

/// Whether under tensor parallelism each rank sees a slice of this module's input only.
pub(crate) fn is_row_parallel(module: &str) -> bool {
    ROW_PARALLEL.contains(&module.rsplit('.').next().unwrap_or_default())
}

/// What the shards' metadata declare: for each module that shares its input, the name that stands
/// for the group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shares(BTreeMap<String, String>);

/// Two modules that belong to different groups.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Clash {
    /// One of them.
    pub(crate) first: String,
    /// The other.
    pub(crate) second: String,
}

impl Shares {
    /// Adds a group. One that is part of a known group, or extends it, belongs to it; a single
    /// module shares nothing.
    ///
    /// # Errors
    /// Two modules of the group that are known to belong to different ones.
    pub(crate) fn join(&mut self, group: &BTreeSet<String>) -> Result<(), Clash> {
        let mut known = group
            .iter()
            .filter_map(|name| Some((name, self.0.get(name)?)));
        let leader = match known.next() {
            None => group.first().cloned().unwrap_or_default(),
            Some((first, leader)) => match known.find(|(_, other)| *other != leader) {
                Some((odd, _)) => {
                    return Err(Clash {
                        first: first.clone(),
                        second: odd.clone(),
                    });
                }
                None => leader.clone(),
            },
        };
        if group.len() > 1 {
            self.0
                .extend(group.iter().map(|name| (name.clone(), leader.clone())));
        }
        Ok(())
    }
}

/// A distinct layer input.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// What its members have in common: the same for every selection of them.
    pub(crate) key: String,
    /// The first member's module path.
    pub(crate) name: String,
    /// Width of the input.
    pub(crate) in_features: usize,
    /// How much of its second moment is gathered.
    pub(crate) second_moment: SecondMomentKind,
    /// Indices into the selected layers.
    pub(crate) layers: Vec<usize>,
}

/// What is saved of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SiteRecord {
    /// What its members have in common.
    pub(crate) key: String,
    /// The first member's module path.
    pub(crate) name: String,
    /// Width of the input.
    pub(crate) in_features: usize,
}

impl SiteRecord {
    /// Of this site.
    #[must_use]
    pub(crate) fn of(site: &Site) -> Self {
        Self {
            key: site.key.clone(),
            name: site.name.clone(),
            in_features: site.in_features,
        }
    }
}

/// All sites of the selected layers, and which one a module's input feeds.
#[derive(Debug, Clone)]
pub(crate) struct Sites {
    /// In the order of their names.
    pub(crate) sites: Vec<Site>,
    by_key: BTreeMap<String, usize>,
    shares: Shares,
    /// How much of the second moment is gathered of a site that comes later.
    second_moment: SecondMomentKind,
}

/// Two layers that shall share an input and cannot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{}' (in_features {}) and '{}' (in_features {}) cannot share an input",
    first.name, first.in_features, second.name, second.in_features
)]
pub(crate) struct UnequalWidths {
    first: NamedWidth,
    second: NamedWidth,
}

/// A layer and the width of its input.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NamedWidth {
    name: String,
    in_features: usize,
}

impl Sites {
    /// Groups the layers by the name table and by what the shards declare.
    ///
    /// # Errors
    /// [`UnequalWidths`] naming both layers, when two that shall share an input differ in
    /// in_features.
    pub(crate) fn group(
        layers: &[Layer],
        shares: &Shares,
        second_moment: SecondMomentKind,
    ) -> Result<Self, UnequalWidths> {
        let mut sites: Vec<Site> = Vec::new();
        let mut by_key = BTreeMap::new();
        for (index, layer) in layers.iter().enumerate() {
            let key = key(&layer.name, shares);
            let site = *by_key.entry(key.clone()).or_insert_with(|| {
                let (name, in_features) = (layer.name.clone(), layer.in_features);
                sites.push(Site {
                    key,
                    name,
                    in_features,
                    second_moment,
                    layers: Vec::new(),
                });
                sites.len() - 1
            });
            let site = &mut sites[site];
            if layer.in_features != site.in_features {
                let named = |name: &str, in_features| NamedWidth {
                    name: name.to_owned(),
                    in_features,
                };
                return Err(UnequalWidths {
                    first: named(&site.name, site.in_features),
                    second: named(&layer.name, layer.in_features),
                });
            }
            site.layers.push(index);
        }
        Ok(Self {
            sites,
            by_key,
            shares: shares.clone(),
            second_moment,
        })
    }

    /// Sites without layers, from what was saved of them.
    #[must_use]
    pub(crate) fn saved(
        sites: &[SiteRecord],
        shares: &Shares,
        second_moment: SecondMomentKind,
    ) -> Self {
        let mut all = Self {
            sites: Vec::new(),
            by_key: BTreeMap::new(),
            shares: shares.clone(),
            second_moment,
        };
        for site in sites {
            all.add(site.key.clone(), &site.name, site.in_features);
        }
        all
    }

    /// The same declarations, and no site yet.
    #[must_use]
    pub(crate) fn without_sites(&self) -> Self {
        Self::saved(&[], &self.shares, self.second_moment)
    }

    /// Where there is no checkpoint: the site of a module, a new one where its input is not known
    /// yet.
    pub(crate) fn ensure(&mut self, module: &str, in_features: usize) -> usize {
        self.of(module)
            .unwrap_or_else(|| self.add(key(module, &self.shares), module, in_features))
    }

    fn add(&mut self, key: String, name: &str, in_features: usize) -> usize {
        let index = self.sites.len();
        self.by_key.insert(key.clone(), index);
        self.sites.push(Site {
            key,
            name: name.to_owned(),
            in_features,
            second_moment: self.second_moment,
            layers: Vec::new(),
        });
        index
    }

    /// How much of the second moment is gathered, also of sites that come later.
    #[must_use]
    pub(crate) const fn second_moment(&self) -> SecondMomentKind {
        self.second_moment
    }

    /// The site with this key.
    #[must_use]
    pub(crate) fn with_key(&self, key: &str) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    /// What the shards declared when the sites were grouped.
    #[must_use]
    pub(crate) const fn shares(&self) -> &Shares {
        &self.shares
    }

    /// The site that a module's input feeds. The module need not be selected itself: the rows of
    /// q_proj are those of a selected v_proj.
    #[must_use]
    pub(crate) fn of(&self, module: &str) -> Option<usize> {
        self.by_key.get(&key(module, &self.shares)).copied()
    }
}

/// What identifies a module's input: equal for modules that share it.
fn key(module: &str, shares: &Shares) -> String {
    if let Some(leader) = shares.0.get(module) {
        // No module path: a declared group does not absorb what the table would add to it.
        return format!("declared:{leader}");
    }
    let (parent, leaf) = module.rsplit_once('.').unwrap_or(("", module));
    let parent_name = parent.rsplit('.').next().unwrap_or(parent);
    SHARED_INPUTS
        .iter()
        .find(|(of, members)| (of.is_empty() || *of == parent_name) && members.contains(&leaf))
        .map_or_else(
            || module.to_owned(),
            |(_, members)| format!("{parent}.{}", members[0]),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        key(a, &Shares::default()) == key(b, &Shares::default())
    }

    #[test]
    fn the_table_joins_what_reads_one_input_and_nothing_else() {
        let block = "model.layers.3";
        let attn = format!("{block}.self_attn");
        assert!(same(&format!("{attn}.q_proj"), &format!("{attn}.v_proj")));
        assert!(!same(&format!("{attn}.q_proj"), &format!("{attn}.o_proj")));
        assert!(same(
            &format!("{block}.mlp.gate_proj"),
            &format!("{block}.mlp.up_proj")
        ));
        assert!(!same(
            &format!("{block}.mlp.gate_proj"),
            &format!("{block}.mlp.down_proj")
        ));
        assert!(!same(
            "model.layers.0.mlp.up_proj",
            "model.layers.1.mlp.up_proj"
        ));
        assert!(!same(
            "decoder.0.encoder_attn.q_proj",
            "decoder.0.encoder_attn.k_proj"
        ));
        assert!(same("h.0.moe.experts.1.w1", "h.0.moe.experts.1.w3"));
        assert!(same(
            "bert.layer.0.attention.self.query",
            "bert.layer.0.attention.self.key"
        ));
    }

    #[test]
    fn declared_groups_extend_and_clash() {
        let group = |names: &[&str]| {
            names
                .iter()
                .map(|n| (*n).to_owned())
                .collect::<BTreeSet<_>>()
        };
        let mut shares = Shares::default();
        shares.join(&group(&["x.b"])).unwrap();
        shares.join(&group(&["x.b", "x.c"])).unwrap();
        shares.join(&group(&["x.a", "x.c"])).unwrap();
        assert_eq!(key("x.a", &shares), key("x.b", &shares));
        shares.join(&group(&["y.a", "y.b"])).unwrap();
        assert!(shares.join(&group(&["x.a", "y.b"])).is_err());
        shares
            .join(&group(&["z.self_attn.q_proj", "z.lin"]))
            .unwrap();
        assert_ne!(
            key("z.self_attn.q_proj", &shares),
            key("z.self_attn.k_proj", &shares)
        );
    }

    #[test]
    fn shares_join_unknown_names() {
        let group: BTreeSet<String> = ["blk.in_a".to_owned(), "blk.in_b".to_owned()].into();
        let mut shares = Shares::default();
        shares.join(&group).unwrap();
        assert_eq!(key("blk.in_a", &shares), key("blk.in_b", &shares));
        assert_ne!(key("blk.in_a", &shares), key("blk.in_c", &shares));
    }
}
