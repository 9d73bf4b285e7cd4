//! `verify --replay`: recorded rows through the files as written, held against an oracle in f64
//! that reads the same files by itself, and against what the manifest says.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod bases;
mod foreign;
mod forms;
mod harm;
mod manifest;
mod oracle;
mod recorded_rows;
mod refused;
mod replayed;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
