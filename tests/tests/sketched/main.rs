//! `--statistics sketch`: output errors are sketched in the place of R, by the daemon as a process:
//! the same bytes however the rows came, what is said of it, and what is refused.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod equal;
mod fixture;
mod model;
mod overflow;
mod refused;
mod said;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
