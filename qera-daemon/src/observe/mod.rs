//! What a run tells: events as they happen, a status for whoever asks (`status`), and its readiness
//! to a service manager (`systemd`). `event` lists the events; the longer ones are in `run_events`,
//! `layer_events`, `sketch_events`, `rounding_events` and `waiting`, the cost of base and adapter
//! in `bits`, the CPU time in `core_time_event`. `reporter` writes them.

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
pub(crate) mod sketch_events;
pub(crate) mod status;
pub(crate) mod systemd;
pub(crate) mod waiting;
