//! `--quantized FILE.gguf`: W~ that somebody else made is read, held against W, and corrected.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod corrected;
mod kept;
mod left_out;
mod refused;
mod split;
mod verified;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
