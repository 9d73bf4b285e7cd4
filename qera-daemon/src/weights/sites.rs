//! Sites: groups of layers that read the same input, so that the input's statistics are gathered
//! once.
//!
//! In a Llama block q, k and v read the output of one norm, gate and up that of another: four sites
//! for seven layers. The shards' metadata `qera.shares` decides first. For layers that it does not
//! name, a listed architecture decides ([`crate::weights::architecture`]). Every other layer is a
//! site of its own. A shard that gives two layers of a site different rows is refused
//! ([`crate::source`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::host::second_moment::SecondMomentKind;
use crate::settings::name_map::NameMap;
use crate::weights::architecture::Architectures;
use crate::weights::layers::Layer;
use crate::weights::sketched::{SiteSketch, SketchRecord};

/// Layers whose input is split over the ranks of a tensor-parallel engine.
const ROW_PARALLEL: [&str; 2] = ["o_proj", "down_proj"];

/// Whether each rank of a tensor-parallel engine sees only a slice of this module's input.
pub(crate) fn is_row_parallel(module: &str) -> bool {
    ROW_PARALLEL.contains(&module.rsplit('.').next().unwrap_or_default())
}

/// The shared inputs that the shards' metadata declare.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shares {
    /// For each module that shares its input, the name of the group.
    groups: BTreeMap<String, String>,
    /// Modules that share their input with no other, as far as was declared.
    alone: BTreeSet<String>,
}

/// Two modules that belong to different groups.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Clash {
    /// The first module.
    pub(crate) first: String,
    /// The second module.
    pub(crate) second: String,
}

impl Shares {
    /// Adds a group. A group that is part of a known one, or extends it, joins it. A single module
    /// shares nothing.
    ///
    /// # Errors
    /// Two modules of the group that are known to belong to different groups.
    pub(crate) fn join(&mut self, group: &BTreeSet<String>) -> Result<(), Clash> {
        let mut known = group
            .iter()
            .filter_map(|name| Some((name, self.groups.get(name)?)));
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
            let members = group.iter().map(|name| (name.clone(), leader.clone()));
            self.groups.extend(members);
            self.alone.retain(|name| !group.contains(name));
        } else if let Some(name) = group.first() {
            self.keep_apart(name);
        }
        Ok(())
    }

    /// Identifies the input of a module that was declared.
    fn key(&self, module: &str) -> Option<String> {
        if let Some(leader) = self.groups.get(module) {
            return Some(format!("{DECLARED}{leader}"));
        }
        self.alone.contains(module).then(|| module.to_owned())
    }

    /// Notes that a module shares its input with no other, unless a group names it.
    pub(crate) fn keep_apart(&mut self, module: &str) {
        if !self.groups.contains_key(module) {
            self.alone.insert(module.to_owned());
        }
    }

    /// The groups under the checkpoint's names.
    #[must_use]
    pub(crate) fn renamed(&self, names: &NameMap) -> Self {
        let groups = self.groups.iter();
        Self {
            groups: groups
                .map(|(name, leader)| (names.apply(name), names.apply(leader)))
                .collect(),
            alone: self.alone.iter().map(|name| names.apply(name)).collect(),
        }
    }
}

/// A distinct layer input.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// Identifies the input; it is the same whichever of its layers are selected.
    pub(crate) key: String,
    /// The first member's module path.
    pub(crate) name: String,
    /// Width of the input.
    pub(crate) in_features: usize,
    /// How much of the input's second moment is gathered.
    pub(crate) second_moment: SecondMomentKind,
    /// What is gathered in the place of the rest; none where nothing is.
    pub(crate) sketch: Option<SiteSketch>,
    /// The site's layers, as indices into the selected layers.
    pub(crate) layers: Vec<usize>,
}

/// The record that is saved of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SiteRecord {
    /// Identifies the input.
    pub(crate) key: String,
    /// The first member's module path.
    pub(crate) name: String,
    /// Width of the input.
    pub(crate) in_features: usize,
    /// Its layers that have a sketch, in the place of R.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sketched: Vec<String>,
}

impl SiteRecord {
    /// The record under the checkpoint's names.
    #[must_use]
    pub(crate) fn renamed(&self, names: &NameMap) -> Self {
        Self {
            key: renamed_key(&self.key, names),
            name: names.apply(&self.name),
            in_features: self.in_features,
            sketched: self.sketched.iter().map(|name| names.apply(name)).collect(),
        }
    }

    /// The record of this site.
    #[must_use]
    pub(crate) fn of(site: &Site) -> Self {
        Self {
            key: site.key.clone(),
            name: site.name.clone(),
            in_features: site.in_features,
            sketched: site.sketch.iter().flat_map(SiteSketch::names).collect(),
        }
    }
}

/// All sites of the selected layers, and the site of each module.
#[derive(Debug, Clone)]
pub(crate) struct Sites {
    /// The sites in the order of their names.
    pub(crate) sites: Vec<Site>,
    by_key: BTreeMap<String, usize>,
    inputs: SharedInputs,
    /// How much of the second moment is gathered for sites that come later.
    second_moment: SecondMomentKind,
    /// Of which E the sketches are, where inputs are sketched.
    pub(crate) sketch: Option<SketchRecord>,
}

/// The error for two layers that shall share an input and cannot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{}' (in_features {}) and '{}' (in_features {}) cannot share an input; qera.shares of the shards says which layers do",
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
    /// Groups the layers into sites by the shards' declarations and by the architecture.
    ///
    /// # Errors
    /// [`UnequalWidths`] naming both layers, when two that shall share an input differ in
    /// in_features.
    pub(crate) fn group(
        layers: &[Layer],
        shares: &Shares,
        known: Arc<Architectures>,
        second_moment: SecondMomentKind,
    ) -> Result<Self, UnequalWidths> {
        let inputs = SharedInputs::new(shares.clone(), known);
        let mut sites: Vec<Site> = Vec::new();
        let mut by_key = BTreeMap::new();
        for (index, layer) in layers.iter().enumerate() {
            let key = inputs.key(&layer.name);
            let site = *by_key.entry(key.clone()).or_insert_with(|| {
                let (name, in_features) = (layer.name.clone(), layer.in_features);
                sites.push(Site {
                    key,
                    name,
                    in_features,
                    second_moment,
                    sketch: None,
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
            inputs,
            second_moment,
            sketch: None,
        })
    }

    /// Sites without layers, from saved records.
    #[must_use]
    pub(crate) fn saved(
        sites: &[SiteRecord],
        shares: &Shares,
        second_moment: SecondMomentKind,
    ) -> Self {
        let mut all = Self {
            sites: Vec::new(),
            by_key: BTreeMap::new(),
            inputs: SharedInputs::new(shares.clone(), Arc::default()),
            second_moment,
            sketch: None,
        };
        for site in sites {
            all.add(site.key.clone(), &site.name, site.in_features);
        }
        all
    }

    /// A copy of the declarations without the sites.
    #[must_use]
    pub(crate) fn without_sites(&self) -> Self {
        Self::saved(&[], &self.inputs.shares, self.second_moment)
    }

    /// Where there is no checkpoint: the site of a module; a new one where its input is not known
    /// yet.
    pub(crate) fn ensure(&mut self, module: &str, in_features: usize) -> usize {
        self.of(module).unwrap_or_else(|| {
            let key = self.inputs.key(module);
            self.add(key, module, in_features)
        })
    }

    fn add(&mut self, key: String, name: &str, in_features: usize) -> usize {
        let index = self.sites.len();
        self.by_key.insert(key.clone(), index);
        self.sites.push(Site {
            key,
            name: name.to_owned(),
            in_features,
            second_moment: self.second_moment,
            sketch: None,
            layers: Vec::new(),
        });
        index
    }

    /// How much of the second moment is gathered, also for sites that come later.
    #[must_use]
    pub(crate) const fn second_moment(&self) -> SecondMomentKind {
        self.second_moment
    }

    /// The site with this key.
    #[must_use]
    pub(crate) fn with_key(&self, key: &str) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    /// The site that was saved under this key. The run that saved it may not have known which
    /// layers share an input, nor, where `names` is given, the checkpoint's names.
    #[must_use]
    pub(crate) fn saved_as(&self, key: &str, names: Option<&NameMap>) -> Option<usize> {
        let key = names.map_or_else(|| key.to_owned(), |names| renamed_key(key, names));
        self.with_key(&key).or_else(|| self.of(&key))
    }

    /// What the shards declared when the sites were grouped.
    #[must_use]
    pub(crate) const fn shares(&self) -> &Shares {
        &self.inputs.shares
    }

    /// The site of a module's input. The module itself need not be selected: the rows of q_proj are
    /// those of a selected v_proj.
    #[must_use]
    pub(crate) fn of(&self, module: &str) -> Option<usize> {
        let key = self.inputs.key(module);
        self.by_key.get(&key).copied()
    }
}

/// The prefix of a group's name that a shard declared. Such a group is exactly what the shard says:
/// a layer that the architecture would add stays outside.
const DECLARED: &str = "declared:";

/// The declarations and names that decide which modules share an input.
#[derive(Debug, Clone)]
struct SharedInputs {
    shares: Shares,
    known: Arc<Architectures>,
    /// Inputs that are shared in the architecture and that the shards split: modules of theirs that
    /// the shards do not mention are not joined either.
    several: BTreeSet<String>,
}

impl SharedInputs {
    fn new(shares: Shares, known: Arc<Architectures>) -> Self {
        let mut declared: BTreeMap<String, String> = BTreeMap::new();
        let mut several = BTreeSet::new();
        for module in shares.groups.keys().chain(&shares.alone) {
            let (Some(input), Some(key)) = (known.input_of(module), shares.key(module)) else {
                continue;
            };
            let first = declared.entry(input.clone()).or_insert_with(|| key.clone());
            if *first != key {
                several.insert(input);
            }
        }
        Self {
            shares,
            known,
            several,
        }
    }

    /// Identifies a module's input: equal for modules that share it.
    fn key(&self, module: &str) -> String {
        let known = || {
            let input = self.known.input_of(module);
            input.filter(|input| !self.several.contains(input))
        };
        let declared = self.shares.key(module).or_else(known);
        declared.unwrap_or_else(|| module.to_owned())
    }
}

/// A key under the checkpoint's names.
#[must_use]
pub(crate) fn renamed_key(key: &str, names: &NameMap) -> String {
    match key.strip_prefix(DECLARED) {
        Some(leader) => format!("{DECLARED}{}", names.apply(leader)),
        None => names.apply(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::model_config::ModelConfig;
    use crate::settings::name_map::MapRule;

    fn key(module: &str, shares: &Shares) -> String {
        let config = ModelConfig::parse(br#"{"model_type":"llama"}"#).unwrap();
        SharedInputs::new(shares.clone(), Arc::new(Architectures::of(&config))).key(module)
    }

    #[test]
    fn the_tap_decides_before_the_architecture() {
        let name = |leaf: &str| format!("model.layers.3.self_attn.{leaf}");
        let nothing = Shares::default();
        let [q, k, v] = ["q_proj", "k_proj", "v_proj"].map(name);
        assert_eq!(key(&q, &nothing), key(&k, &nothing));
        let mut shares = Shares::default();
        shares.join(&[q.clone()].into()).unwrap();
        assert_eq!(key(&q, &shares), key(&v, &shares), "nothing contradicts it");
        shares.join(&[k.clone()].into()).unwrap();
        assert_ne!(key(&q, &shares), key(&k, &shares));
        for declared in [&q, &k] {
            assert_ne!(
                key(declared, &shares),
                key(&v, &shares),
                "it is one of them, or neither"
            );
        }
        // Modules that were seen alone first and together later belong together.
        shares.join(&[q.clone(), k.clone()].into()).unwrap();
        assert_eq!(key(&q, &shares), key(&k, &shares));
        assert_eq!(key("x.self_attn.q_proj", &nothing), "x.self_attn.q_proj");
    }

    #[test]
    fn keys_are_renamed_with_their_modules() {
        let names = NameMap::new(false, vec![MapRule::prefix("", "model")]);
        let mut shares = Shares::default();
        shares
            .join(&["a".to_owned(), "b".to_owned()].into())
            .unwrap();
        shares.join(&["c".to_owned()].into()).unwrap();
        for module in ["a", "b", "c"] {
            let renamed = key(&names.apply(module), &shares.renamed(&names));
            assert_eq!(renamed, renamed_key(&key(module, &shares), &names));
        }
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
