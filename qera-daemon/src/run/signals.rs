//! Handles SIGINT, SIGTERM and SIGHUP.

use core::sync::atomic::{AtomicBool, Ordering};
use std::path::Path;
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::disk;
use crate::error::Fatal;
use crate::exit::{SECOND_SIGINT, SECOND_SIGTERM};
use crate::source::watch::Wake;

/// Whether signals came.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Set by the first signal.
    pub(crate) stopping: Arc<AtomicBool>,
    /// The signals that set it.
    heard: Vec<i32>,
}

impl Signals {
    /// The first SIGINT or SIGTERM sets the flag, and the second ends the process at once. Whatever
    /// is published or saved by then is complete, because it is renamed into place. SIGHUP counts
    /// like a first signal, however often it comes (a terminal that closes and its shell both send
    /// it), unless it was ignored when the process began, as `nohup` asks.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn listen() -> Result<Self, Fatal> {
        let stopping = Arc::new(AtomicBool::new(false));
        for (signal, status) in [(SIGINT, SECOND_SIGINT), (SIGTERM, SECOND_SIGTERM)] {
            signal_hook::flag::register_conditional_shutdown(signal, status, Arc::clone(&stopping))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stopping)))
                .map_err(Fatal::io(Path::new("signals"), "register"))?;
        }
        let mut heard = vec![SIGINT, SIGTERM];
        if !is_ignored(SIGHUP) {
            signal_hook::flag::register(SIGHUP, Arc::clone(&stopping))
                .map_err(Fatal::io(Path::new("signals"), "register"))?;
            heard.push(SIGHUP);
        }
        Ok(Self { stopping, heard })
    }

    /// Whether a signal came.
    pub(crate) fn came(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Signals of a simulated run: none is heard, and whoever has the flag ends the run.
    #[cfg(test)]
    pub(crate) const fn set_by(stopping: Arc<AtomicBool>) -> Self {
        Self {
            stopping,
            heard: Vec::new(),
        }
    }

    /// Makes a signal end the wait for shards.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn wake(&self, wake: &Wake) -> Result<(), Fatal> {
        if self.heard.is_empty() {
            return Ok(());
        }
        let mut signals = signal_hook::iterator::Signals::new(&self.heard)
            .map_err(Fatal::io(Path::new("signals"), "register"))?;
        let wake = wake.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for _ in signals.forever() {
                    wake.wake();
                }
            })
            .map(drop)
            .map_err(Fatal::io(Path::new("signals"), "start the thread"))
    }
}

/// Whether the process was started with this signal ignored.
fn is_ignored(signal: i32) -> bool {
    let status = disk::read(Path::new("/proc/self/status")).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let mut masks = status
        .lines()
        .filter_map(|line| line.strip_prefix("SigIgn:"));
    let mask = masks
        .next()
        .map(|mask| u64::from_str_radix(mask.trim(), 16));
    mask.is_some_and(|mask| mask.is_ok_and(|mask| mask >> (signal - 1) & 1 == 1))
}
