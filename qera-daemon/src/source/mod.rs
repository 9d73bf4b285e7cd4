//! Activations in: what wakes the daemon (`watch`), which files are shards (`folder`) and can be
//! read now (`intake`), what each claims to hold (`shard`, `metadata`), whether that fits this
//! checkpoint (`admission`, `tensor_role`, `sum_entry`), and its rows (`rows`) and sums over rows
//! (`sums`), read, hashed and checked in one pass (`reading`, `pass`, `counted`).
//!
//! A shard is atomic: one bad tensor and none of it counts. What refuses it is a `Refusal`, which
//! names the file, the tensor and the numbers; the run goes on without that shard.

pub(crate) mod admission;
pub(crate) mod bad_sum;
pub(crate) mod beside;
pub(crate) mod consumed;
pub(crate) mod counted;
pub(crate) mod declared;
pub(crate) mod definite;
pub(crate) mod first_of_sites;
pub(crate) mod folder;
pub(crate) mod grouping;
pub(crate) mod intake;
pub(crate) mod metadata;
pub(crate) mod naming;
pub(crate) mod pass;
pub(crate) mod reading;
pub(crate) mod refusal;
pub(crate) mod rows;
pub(crate) mod shard;
pub(crate) mod sum_counts;
pub(crate) mod sum_entry;
pub(crate) mod sum_names;
pub(crate) mod sums;
pub(crate) mod tensor_role;
pub(crate) mod watch;
