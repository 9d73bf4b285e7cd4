//! `--quantized FOLDER`: W~ that another program packed is read, held against W, and corrected.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod corrected;
mod kept;
mod refused;
mod verified;
mod zero_points;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
