//! The names of layers in the base, and in the class that serves the model, whose names the adapter
//! has.

use std::collections::BTreeMap;

use crate::publish::check::manifest_claims::ManifestClaims;
use crate::settings::dotted::{before_last, join, last_part};

/// The names on both sides.
#[derive(Debug, Default)]
pub(crate) struct ServedNames {
    /// The base's name of each served name, where they differ.
    in_base: BTreeMap<String, String>,
    /// The served name of each of the base's names, where they differ.
    served: BTreeMap<String, String>,
    /// The prefixes of layers' names, in the base and when served. Modules that are no layers are
    /// translated by these.
    beginnings: BTreeMap<String, String>,
}

impl ServedNames {
    /// The names that a manifest gives; without a manifest both sides have the same names.
    #[must_use]
    pub(crate) fn of(manifest: Option<&ManifestClaims>) -> Self {
        let mut names = Self::default();
        for layer in manifest.map(|m| &m.layers[..]).unwrap_or_default() {
            let (base, served) = (layer.name.as_str(), layer.served_as());
            if base != served {
                names.in_base.insert(served.to_owned(), base.to_owned());
                names.served.insert(base.to_owned(), served.to_owned());
                names.learn(base, served);
            }
        }
        names
    }

    /// Learns a prefix, by cutting off the parts in which both names end.
    fn learn(&mut self, base: &str, served: &str) {
        let (mut base, mut served) = (base, served);
        while last_part(base) == last_part(served) && !(base.is_empty() || served.is_empty()) {
            (base, served) = (before_last(base), before_last(served));
        }
        self.beginnings
            .entry(base.to_owned())
            .or_insert_with(|| served.to_owned());
    }

    /// The base's name of a served layer.
    #[must_use]
    pub(crate) fn in_base<'n>(&'n self, served: &'n str) -> &'n str {
        self.in_base.get(served).map_or(served, String::as_str)
    }

    /// The served name of a module of the base.
    #[must_use]
    pub(crate) fn served(&self, base: &str) -> String {
        if let Some(served) = self.served.get(base) {
            return served.clone();
        }
        let mut beginning = base;
        loop {
            if let Some(served) = self.beginnings.get(beginning) {
                let rest = base[beginning.len()..].trim_start_matches('.');
                return join(served, rest);
            }
            if beginning.is_empty() {
                return base.to_owned();
            }
            beginning = before_last(beginning);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pairs: &[[&str; 2]]) -> ServedNames {
        let mut names = ServedNames::default();
        for [base, served] in pairs {
            names.in_base.insert((*served).into(), (*base).into());
            names.served.insert((*base).into(), (*served).into());
            names.learn(base, served);
        }
        names
    }

    #[test]
    fn a_beginning_that_the_layers_have_holds_for_other_modules_too() {
        let added = names(&[["h.0.attn", "transformer.h.0.attn"]]);
        assert_eq!(added.in_base("transformer.h.0.attn"), "h.0.attn");
        assert_eq!(added.in_base("lm_head"), "lm_head");
        assert_eq!(added.served("h.0.attn"), "transformer.h.0.attn");
        assert_eq!(added.served("h.1.ln"), "transformer.h.1.ln");
        let removed = names(&[["bert.layer.0.q", "layer.0.q"]]);
        assert_eq!(removed.served("bert.layer.1.k"), "layer.1.k");
        assert_eq!(removed.served("cls.head"), "cls.head");
        let moved = names(&[["text.model.layers.0.q", "model.text.layers.0.q"]]);
        assert_eq!(moved.served("text.model.norm"), "model.text.norm");
        assert_eq!(moved.served("text.model"), "model.text");
        assert_eq!(moved.served("vision.q"), "vision.q");
        assert_eq!(names(&[]).served("a.b"), "a.b");
    }
}
