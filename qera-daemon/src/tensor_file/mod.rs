//! The safetensors container, as both shards and checkpoints use it: a header that is distrusted
//! until every number in it was checked (`header`), and a writer that streams (`writer`).

mod header;
mod writer;

pub use header::{Claim, Header, HeaderError, Identity, dtype_name, float_dtype};
pub use writer::{Sink, TensorPlan, write, write_hashed};
