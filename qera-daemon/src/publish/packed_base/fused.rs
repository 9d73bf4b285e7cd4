//! Which modules an engine fuses into one. Either all of them are packed, or none.
//!
//! The lists are those of vLLM's `packed_modules_mapping` (0.32, all of its models); SGLang has the
//! same. Layers that share an input in a listed architecture are taken for fused as well, since an
//! engine may fuse any of these.

use std::collections::BTreeSet;

use crate::settings::dotted::{before_last, is_number, last_part};
use crate::weights::Weights;

/// Last names of modules with the same parent that are fused into one.
const FUSED: [&[&str]; 9] = [
    &["q_proj", "k_proj", "v_proj", "b_proj", "g_proj"],
    &["gate_proj", "up_proj", "dense_h_to_4h"],
    &["query", "key", "value"],
    &["wq", "wk", "wv"],
    &["w1", "w3"],
    &["c_fc_0", "c_fc_1"],
    &["in_proj_qkv", "in_proj_z"],
    &["in_proj_b", "in_proj_a"],
    &["q_a_proj", "kv_a_proj_with_mqa"],
];
/// The name of a list of experts.
const EXPERTS: &str = "experts";

/// The fused modules, in groups. Each group has a name of its own, and a module may be in several.
#[derive(Debug)]
pub(crate) struct FusedGroups<'a> {
    weights: &'a Weights,
}

impl<'a> FusedGroups<'a> {
    /// The fused groups of a model.
    pub(crate) const fn of(weights: &'a Weights) -> Self {
        Self { weights }
    }

    /// The groups that a module is in.
    pub(crate) fn of_module(&self, module: &str) -> Vec<String> {
        let (parent, last) = (before_last(module), last_part(module));
        let listed = FUSED.iter().find(|names| names.contains(&last));
        let by_name = listed.map(|names| format!("{parent} {}", names[0]));
        let by_input = self.weights.input_of(module);
        let by_input = by_input.map(|input| format!("{input} as input"));
        let experts = experts_of(module).map(|list| format!("{list} all"));
        [by_name, by_input, experts].into_iter().flatten().collect()
    }

    /// Adds to these modules every other one that is fused with one of them, and so on.
    pub(crate) fn close(&self, whole: &mut BTreeSet<String>, others: &[String]) {
        let mut groups: BTreeSet<String> = BTreeSet::new();
        let mut left: Vec<&String> = others.iter().collect();
        loop {
            groups.extend(whole.iter().flat_map(|module| self.of_module(module)));
            let joins = |module: &&String| {
                let mut own = self.of_module(module).into_iter();
                own.any(|group| groups.contains(&group))
            };
            let (joined, apart): (Vec<&String>, Vec<&String>) = left.into_iter().partition(joins);
            if joined.is_empty() {
                return;
            }
            whole.extend(joined.into_iter().cloned());
            left = apart;
        }
    }
}

/// The list of experts that a module lies in.
fn experts_of(module: &str) -> Option<&str> {
    let (list, rest) = module.split_once(".experts.")?;
    let number = rest.split('.').next()?;
    is_number(number).then(|| &module[..list.len() + 1 + EXPERTS.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_are_one_list() {
        let of = |module| experts_of(module);
        assert_eq!(of("h.0.mlp.experts.7.w1"), Some("h.0.mlp.experts"));
        assert_eq!(of("h.0.mlp.experts.w1"), None);
        assert_eq!(of("h.0.mlp.shared_expert.w1"), None);
    }
}
