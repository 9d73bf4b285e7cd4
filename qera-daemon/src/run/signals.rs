//! SIGINT and SIGTERM.

use core::sync::atomic::{AtomicBool, Ordering};
use std::path::Path;
use std::sync::Arc;

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::error::Fatal;
use crate::exit::{SECOND_SIGINT, SECOND_SIGTERM};
use crate::source::watch::Wake;

/// What signals have said.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Set by the first.
    pub(crate) stopping: Arc<AtomicBool>,
}

impl Signals {
    /// The first SIGINT or SIGTERM sets the flag; the second ends the process at once. What is
    /// published or saved by then is complete, because it is renamed in.
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
        Ok(Self { stopping })
    }

    /// Whether one came.
    pub(crate) fn came(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// A signal ends the wait for shards.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn wake(&self, wake: &Wake) -> Result<(), Fatal> {
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])
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
