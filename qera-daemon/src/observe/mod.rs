//! What is told of a run: events as they happen (`event` lists them, `run_events`,
//! `layer_events`, `rounding_events` and `waiting` hold the longer ones, with what base and adapter
//! cost in `bits` and what the CPU did in `core_time_event`; `reporter` says them), a status for
//! whoever asks (`status`), and readiness to a service manager (`systemd`).

pub(crate) mod bits;
pub(crate) mod command_events;
pub(crate) mod core_time_event;
pub(crate) mod event;
pub(crate) mod imatrix_events;
pub(crate) mod ingest_events;
pub(crate) mod layer_events;
pub(crate) mod notify_events;
pub(crate) mod repeats;
pub(crate) mod reporter;
pub(crate) mod rounding_events;
pub(crate) mod run_events;
pub(crate) mod status;
pub(crate) mod systemd;
pub(crate) mod waiting;
