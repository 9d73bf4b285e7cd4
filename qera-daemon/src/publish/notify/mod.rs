//! `--notify`: each generation is handed to the servers that were named, and each is looked at now
//! and then, so that it serves the right one whichever side began anew. A thread a server, beside
//! publishing, which never waits for it; nothing that a server does ends a run.
//!
//! What is to be done next is decided in `reconcile` from what the server lists; `round` does it
//! through `conversation`, which speaks what `protocol` writes and reads; `memory` is what has to
//! be known after a restart, and which generations are not pruned meanwhile.

pub(crate) mod canary;
pub(crate) mod conversation;
pub(crate) mod memory;
pub(crate) mod problem;
pub(crate) mod protocol;
pub(crate) mod reconcile;
pub(crate) mod round;
pub(crate) mod server_thread;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crossbeam_channel::{Sender, unbounded};

use crate::disk::read_link;
use crate::error::Fatal;
use crate::observe::event::Event;
use crate::observe::notify_events::ServerStatus;
use crate::publish::notify::memory::NotifiedMemory;
use crate::publish::notify::round::ServerRounds;
use crate::publish::notify::server_thread::ServerThread;
use crate::settings::notify::NotifySettings;

/// Who is told what becomes of it.
pub(crate) trait Audience: Send + Sync {
    /// Something happened.
    fn say(&self, event: &Event<'_>);
    /// A server is as this says.
    fn show(&self, status: &ServerStatus);
}

/// What all threads share.
#[derive(Debug, Clone)]
pub(crate) struct HandOver {
    /// The servers and their token.
    pub(crate) settings: NotifySettings,
    /// What was told.
    pub(crate) memory: Arc<NotifiedMemory>,
    /// The output folder.
    pub(crate) out: PathBuf,
    /// Whether the generation that is current at the start is damaged: no server is told of it.
    pub(crate) is_damaged: bool,
}

/// Who is told of generations.
#[derive(Debug, Default)]
pub(crate) struct Notifiers {
    servers: Vec<Sender<u64>>,
}

impl Notifiers {
    /// Hands a generation over and returns at once; of several that wait the newest counts.
    pub(crate) fn published(&self, generation: u64) {
        for server in &self.servers {
            // Fails only if the thread panicked, which the panic's own message has told.
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
    /// Starts a thread for each server; they begin with the current generation, if there is one,
    /// and end when the notifiers are dropped and each server serves the newest generation, or has
    /// failed to a few times.
    ///
    /// # Errors
    /// [`Fatal::Io`] when the system gives no thread.
    pub(crate) fn start<A: Audience + Clone + 'scope>(
        &mut self,
        scope: &'scope Scope<'scope, '_>,
        hand_over: &HandOver,
        audience: &A,
    ) -> Result<Notifiers, Fatal> {
        let newest = current_number(&hand_over.out).filter(|_| !hand_over.is_damaged);
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

    /// Waits for their ends.
    pub(crate) fn join(self) {
        for thread in self.threads {
            // A panic has told its own message, and no result depends on it.
            let _ = thread.join();
        }
    }
}

/// The number of the generation that `current` names.
fn current_number(out: &Path) -> Option<u64> {
    let link = read_link(&out.join("current")).ok()?;
    link.file_name()?.to_str()?.parse().ok()
}
