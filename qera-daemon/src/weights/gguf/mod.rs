//! Translates a GGUF's names and row orders to those of Hugging Face, which are used everywhere
//! else: names in `family`, rows in `rows`, both for the layers of a run in `layer_names`. `file`
//! is an open GGUF, `checkpoint` one in full precision, and `source` gives everything in it as it
//! lies, to be copied.

pub(crate) mod checkpoint;
pub(crate) mod family;
pub(crate) mod file;
pub(crate) mod layer_names;
pub(crate) mod rows;
pub(crate) mod source;
