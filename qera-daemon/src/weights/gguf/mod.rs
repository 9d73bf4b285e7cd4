//! A GGUF's names and row orders beside those of Hugging Face, which are the ones that are used
//! everywhere else: names (`family`), and where a row lies (`rows`).

pub(crate) mod family;
pub(crate) mod rows;
