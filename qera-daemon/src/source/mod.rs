//! Takes activations in. `watch` wakes the daemon; `folder` lists the shards and `intake` says
//! which can be read now. `shard` and `metadata` read what a shard claims to hold, and `admission`,
//! `tensor_role` and `sum_entry` decide whether that fits this checkpoint. Its rows (`rows`) and
//! sums over rows (`sums`) are read, hashed and checked in one pass (`reading`, `pass`, `counted`).
//!
//! A shard is atomic: if one tensor is bad, none of it counts. It is refused with a `Refusal`,
//! which names the file, the tensor and the numbers, and the run goes on without it.

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
