//! The daemon with `--once`, as a process: what it publishes, what it sets aside, what it refuses
//! and with which exit code.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod bad_layer;
mod base;
mod broken_weights;
mod closed;
mod conv1d;
mod core_time;
mod damaged_generation;
mod empty_input;
mod gguf_names;
mod grids;
mod harmful_layer;
mod linears;
mod many_modules;
mod many_partial;
mod names;
mod odd_names;
mod one_layer;
mod one_pass;
mod output_folder;
mod pruned;
mod published;
mod quarantine;
mod refused_checkpoints;
mod refused_options;
mod rounding_plan;
mod shards_in_flight;
mod sites;
mod unanswered;
mod widths;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
