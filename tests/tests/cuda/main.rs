//! The daemon beside a CPU stand-in for a CUDA device: libraries by the names of the driver and of
//! cuBLAS that compute on this machine, late and in another order (`ci/cuda/`). No GPU takes part.
//!
//! The stage `cuda` builds the stand-in and runs this; plain `cargo test` does not.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod choosing;
mod failures;
mod fixture;
mod live_failures;
mod memory;
mod rounding;
mod settled;
mod stand_in;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
