//! `--emit-base=compressed-tensors`: W~ as codes and scales in OUT/base-compressed-tensors.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod experts;
mod folder;
mod kept;
mod model;
mod planned;
mod refused;
mod rounded;
mod vectors;
mod verified;
mod whole;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
