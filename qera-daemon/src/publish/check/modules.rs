//! The modules of a model, as the names of its tensors tell them.

use std::collections::BTreeSet;

/// Every module that a tensor lies in: a tensor `a.b.weight` makes `a` and `a.b`.
#[must_use]
pub(crate) fn modules_of<'t>(tensors: impl Iterator<Item = &'t str>) -> BTreeSet<&'t str> {
    let beginnings = |name: &'t str| name.match_indices('.').map(move |(dot, _)| &name[..dot]);
    tensors.flat_map(beginnings).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_beginning_of_a_name_is_a_module() {
        let found = modules_of(["a.b.weight", "a.c.bias", "lone"].into_iter());
        assert_eq!(found, BTreeSet::from(["a", "a.b", "a.c"]));
    }
}
