//! Collects a shard's tensors by site. The first tensor of a site counts, and later ones must equal
//! it.

use std::collections::HashMap;

/// The first item of each site, in the order in which they came.
pub(crate) struct FirstOfSites<'a, T> {
    found: Vec<OfModule<'a, T>>,
    /// The index of each site's tensor.
    by_site: HashMap<usize, usize>,
}

struct OfModule<'a, T> {
    /// The module whose tensor it is.
    key: &'a str,
    item: T,
}

impl<'a, T> FirstOfSites<'a, T> {
    /// A collection that is empty.
    pub(crate) fn new() -> Self {
        Self {
            found: Vec::new(),
            by_site: HashMap::new(),
        }
    }

    /// Takes a module's tensor for a site. If the site has one already, `check` compares the two;
    /// it also gets the key of the first.
    ///
    /// # Errors
    /// The item is refused, as `check` says.
    pub(crate) fn take<E>(
        &mut self,
        site: usize,
        key: &'a str,
        item: T,
        check: impl FnOnce(&str, &T, &T) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(&at) = self.by_site.get(&site) {
            let first = &self.found[at];
            return check(first.key, &first.item, &item);
        }
        self.by_site.insert(site, self.found.len());
        self.found.push(OfModule { key, item });
        Ok(())
    }

    /// The collected items, one for each site.
    #[must_use]
    pub(crate) fn items(self) -> Vec<T> {
        self.found.into_iter().map(|of| of.item).collect()
    }
}
