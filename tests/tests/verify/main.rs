//! `verify`, and the same check before `current` is switched: each kind of damage is named, and
//! what does not pass is not published.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod bases;
mod configuration;
mod copied_adapter;
mod foreign;
mod publishing;
mod rounded_bases;
mod tensors;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
