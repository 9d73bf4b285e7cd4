//! What a shard has for its sites: the first tensor of each counts, and those that repeat it are
//! held against it.

use std::collections::HashMap;

/// What is collected, in the order in which it came.
pub(crate) struct FirstOfSites<'a, T> {
    found: Vec<OfModule<'a, T>>,
    /// Where among them each site is.
    by_site: HashMap<usize, usize>,
}

struct OfModule<'a, T> {
    /// The module that it is of.
    key: &'a str,
    item: T,
}

impl<'a, T> FirstOfSites<'a, T> {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            found: Vec::new(),
            by_site: HashMap::new(),
        }
    }

    /// Takes what a module has for a site; `check` holds it against the first, with that one's key.
    ///
    /// # Errors
    /// Those of `check`.
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

    /// One for each site.
    #[must_use]
    pub(crate) fn items(self) -> Vec<T> {
        self.found.into_iter().map(|of| of.item).collect()
    }
}
