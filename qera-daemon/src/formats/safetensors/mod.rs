//! The safetensors container, as both shards and checkpoints use it: a header that is distrusted
//! until every number in it was checked (`header`), and a writer that streams (`writer`).

pub(crate) mod header;
pub(crate) mod writer;
