//! A GGUF's names and row orders beside those of Hugging Face, which are the ones that are used
//! everywhere else: names (`family`), and where a row lies (`rows`), both of the layers of a run
//! (`layer_names`); an open file (`file`), and one in full precision as the `checkpoint`, of which
//! everything can be copied as it lies (`source`).

pub(crate) mod checkpoint;
pub(crate) mod family;
pub(crate) mod file;
pub(crate) mod layer_names;
pub(crate) mod rows;
pub(crate) mod source;
