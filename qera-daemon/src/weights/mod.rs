//! The weights: which files and tensors (`checkpoint`), which of them are linear layers (`layers`), which of those share an
//! input (`sites`), and a site's W and E, one layer in memory at a time (`site_layers`).

pub(crate) mod checkpoint;
pub(crate) mod layers;
pub(crate) mod site_layers;
pub(crate) mod sites;
