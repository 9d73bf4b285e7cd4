//! `--emit-base=gguf`: W~ in ggml's blocks, in a copy of the GGUF that the checkpoint is.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod bits;
mod copied;
mod grids;
mod kept;
mod model;
mod refused;
mod rounded;
mod verified;
mod whole;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
