//! The threads of the stages. A panic becomes an error, and a stage that ends early keeps no other
//! waiting.

use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::channel::Receiver;
use crate::error::Fatal;
use crate::pipeline::context::Context;
#[cfg(test)]
use crate::trials::turns;

/// A thread of the scope whose panic becomes an error.
#[derive(Debug)]
pub(crate) struct StageThread<'scope, T> {
    name: &'static str,
    handle: ScopedJoinHandle<'scope, T>,
    /// In a simulated run only one thread runs at a time.
    #[cfg(test)]
    end: turns::Awaited,
}

/// Sets the flag of a failed stage when the thread that holds this panics.
struct PanicFlag<'a>(&'a Context<'a>);

impl Drop for PanicFlag<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail();
        }
    }
}

/// Receives and drops what still comes until the channel is closed, also when the thread fails or
/// panics. A message that stays in a channel would keep alive the senders of answers that others
/// wait for.
#[derive(Debug)]
pub(crate) struct Discard<'a, T>(pub(crate) &'a Receiver<T>);

impl<T> Drop for Discard<'_, T> {
    fn drop(&mut self) {
        self.0.iter().for_each(drop);
    }
}

/// Starts a stage's thread.
///
/// # Errors
/// [`Fatal::Io`] where the system gives none.
pub(crate) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &'static str,
    context: &'scope Context<'scope>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<StageThread<'scope, T>, Fatal> {
    #[cfg(test)]
    let (place, end) = turns::place();
    let handle = Builder::new()
        .name(name.into())
        .spawn_scoped(scope, move || {
            #[cfg(test)]
            let _turns = place.take();
            let _flag = PanicFlag(context);
            work()
        })
        .map_err(Fatal::io(std::path::Path::new(name), "start the thread"))?;
    Ok(StageThread {
        name,
        handle,
        #[cfg(test)]
        end,
    })
}

impl<T> StageThread<'_, T> {
    /// Waits for the thread's end.
    ///
    /// # Errors
    /// [`Fatal::Panicked`].
    pub(crate) fn join(self) -> Result<T, Fatal> {
        #[cfg(test)]
        drop(self.end);
        self.handle.join().map_err(|panic| Fatal::Panicked {
            thread: self.name,
            message: panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_default(),
        })
    }
}
