//! What is computed through a device, against sums in f64 that are written out here.
//!
//! `ci/cuda/run.sh` runs this on the CPU stand-in (`ci/cuda/standin/`), in several orders of late
//! work; `benches/cuda/run` on a real device. Every comparison is with an oracle of its own, and
//! never with another route of the crate.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod accumulation;
mod devices;
mod failures;
mod inputs;
mod solving;

use qera_gpu::{Offload, OffloadOptions};
use std::sync::Arc;

/// The device that the environment has.
fn device() -> Arc<Offload> {
    Arc::new(Offload::open(&OffloadOptions::default()).unwrap())
}
