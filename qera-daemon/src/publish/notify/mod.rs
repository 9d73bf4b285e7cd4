//! `--notify`: each generation is handed to the named servers. Each server is also looked at now
//! and then, so that it serves the right generation, whichever side was restarted. Every server has
//! a thread of its own. Publishing never waits for it, and nothing that a server does ends a run.
//!
//! `reconcile` decides from the server's list what is to be done next. `round` does it through
//! `conversation`, which speaks the words of `protocol`. `memory` is what must be known after a
//! restart, and which generations must not be pruned meanwhile; `still_read` is for how long.

pub(crate) mod canary;
pub(crate) mod conversation;
pub(crate) mod memory;
pub(crate) mod problem;
pub(crate) mod protocol;
pub(crate) mod reconcile;
pub(crate) mod round;
pub(crate) mod server_thread;
pub(crate) mod still_read;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crossbeam_channel::{Sender, unbounded};

use crate::disk::presence::target_of;
use crate::error::Fatal;
use crate::observe::event::Event;
use crate::observe::notify_events::ServerStatus;
use crate::publish::notify::memory::NotifiedMemory;
use crate::publish::notify::round::ServerRounds;
use crate::publish::notify::server_thread::ServerThread;
use crate::settings::notify::NotifySettings;

/// Whoever is told what becomes of the servers.
pub(crate) trait Audience: Send + Sync {
    /// Tells an event.
    fn say(&self, event: &Event<'_>);
    /// Shows the present status of a server.
    fn show(&self, status: &ServerStatus);
}

/// What the threads of all servers share.
#[derive(Debug, Clone)]
pub(crate) struct HandOver {
    /// The servers and their token.
    pub(crate) settings: NotifySettings,
    /// The memory of what servers were told.
    pub(crate) memory: Arc<NotifiedMemory>,
    /// The output folder.
    pub(crate) out: PathBuf,
    /// Whether the generation that is current at the start is damaged, so that no server is told of
    /// it.
    pub(crate) is_damaged: bool,
}

/// The channels to the servers' threads.
#[derive(Debug, Default)]
pub(crate) struct Notifiers {
    servers: Vec<Sender<u64>>,
}

impl Notifiers {
    /// Hands a generation over and returns at once. Where several wait, the newest one counts.
    pub(crate) fn published(&self, generation: u64) {
        for server in &self.servers {
            // This fails only if the thread panicked; the panic's own message has told that.
            let _ = server.send(generation);
        }
    }
}

/// The threads of the servers.
#[derive(Debug, Default)]
pub(crate) struct NotifyThreads<'scope> {
    threads: Vec<ScopedJoinHandle<'scope, ()>>,
}

impl<'scope> NotifyThreads<'scope> {
    /// Starts a thread for each server. They begin with the current generation, if there is one.
    /// They end when the notifiers are dropped and each server serves the newest generation, or has
    /// failed to a few times.
    ///
    /// # Errors
    /// [`Fatal::Io`] when the system gives no thread, or does not say what the current one is.
    pub(crate) fn start<A: Audience + Clone + 'scope>(
        &mut self,
        scope: &'scope Scope<'scope, '_>,
        hand_over: &HandOver,
        audience: &A,
    ) -> Result<Notifiers, Fatal> {
        let newest = current_number(&hand_over.out)?.filter(|_| !hand_over.is_damaged);
        let mut servers = Vec::new();
        for server in &hand_over.settings.servers {
            let (generations, coming) = unbounded();
            let rounds = ServerRounds::new(server.clone(), hand_over.clone(), audience.clone());
            let thread = ServerThread::new(rounds, newest, coming);
            let thread = Builder::new()
                .name("notify".into())
                .spawn_scoped(scope, move || thread.run())
                .map_err(Fatal::io(Path::new("--notify"), "start the thread"))?;
            servers.push(generations);
            self.threads.push(thread);
        }
        Ok(Notifiers { servers })
    }

    /// Waits until the threads have ended.
    pub(crate) fn join(self) {
        for thread in self.threads {
            // A panic has told its own message, and no result depends on it.
            let _ = thread.join();
        }
    }
}

/// The number of the generation that `current` names.
fn current_number(out: &Path) -> Result<Option<u64>, Fatal> {
    let current = target_of(&out.join("current"))?;
    Ok(current.and_then(|of| of.file_name()?.to_str()?.parse().ok()))
}
