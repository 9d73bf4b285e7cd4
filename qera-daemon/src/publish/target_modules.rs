//! `target_modules` of PEFT's configuration. An entry targets a module if it is the module's name,
//! or the end of it in whole parts. Every engine understands a last name alone; it is used where it
//! targets no module without a pair.

use std::collections::{BTreeMap, BTreeSet};

use crate::settings::dotted::{is_number, last_part};

/// The entries for an adapter's modules, given every module of the class that serves it.
#[must_use]
pub(crate) fn target_modules(adapter: &BTreeSet<&str>, modules: &BTreeSet<String>) -> Vec<String> {
    let others = modules.iter().map(String::as_str);
    let others = others.filter(|module| !adapter.contains(module));
    let ambiguous: BTreeSet<&str> = others.map(last_part).collect();
    let mut by_leaf: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for module in adapter {
        by_leaf.entry(last_part(module)).or_default().push(module);
    }
    let entries = by_leaf.into_iter().flat_map(|(leaf, full)| {
        // A number names the place in a list: modules without parameters have one too.
        match is_number(leaf) || ambiguous.contains(leaf) {
            true => full,
            false => vec![leaf],
        }
    });
    entries.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_name_is_used_where_it_means_nothing_else() {
        let modules = [
            "model.layers.0",
            "model.layers.0.q",
            "model.layers.1.q",
            "head.0",
        ];
        let mut modules: BTreeSet<String> = modules.iter().map(|m| (*m).to_owned()).collect();
        let both = ["model.layers.0.q", "model.layers.1.q"].into();
        assert_eq!(target_modules(&both, &modules), ["q"]);
        let one = ["model.layers.0.q"].into();
        assert_eq!(target_modules(&one, &modules), ["model.layers.0.q"]);
        // '0' would also target a decoder layer, and '1' might target anything.
        let numbers = ["head.0", "head.1"].into();
        modules.insert("head.1".into());
        assert_eq!(target_modules(&numbers, &modules), ["head.0", "head.1"]);
    }
}
