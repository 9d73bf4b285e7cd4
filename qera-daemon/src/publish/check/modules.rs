//! The modules of a model, read off the names of its tensors.

use std::collections::BTreeSet;

/// Every module that contains a tensor: the tensor `a.b.weight` gives `a` and `a.b`.
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
