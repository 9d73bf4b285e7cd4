//! The safetensors container, as shards and checkpoints use it: a header that is not trusted until
//! every number in it was checked (`header`), and a writer that streams (`writer`).

pub(crate) mod header;
pub(crate) mod writer;
