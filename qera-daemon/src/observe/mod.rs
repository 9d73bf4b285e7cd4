//! What is told of a run: events as they happen (`event`, `reporter`), a status for whoever asks (`status`), and readiness to a
//! service manager (`systemd`).

pub(crate) mod event;
pub(crate) mod reporter;
pub(crate) mod status;
pub(crate) mod systemd;
