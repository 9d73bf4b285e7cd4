//! Channels of threads that go one at a time, with what is used of crossbeam's interface. Made by a
//! thread of no run they wait as any other.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{RARELY, Seat, Standing, Turns};

/// Nobody is at the other end, or there is nothing, or no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotNow;

#[derive(Debug)]
struct Shared<T> {
    queue: Mutex<Queue<T>>,
    /// For threads of no run.
    changed: Condvar,
    turns: Option<Arc<Turns>>,
}

#[derive(Debug)]
struct Queue<T> {
    messages: VecDeque<T>,
    room: usize,
    senders: usize,
    receivers: usize,
}

/// The end that is sent to.
#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// The end that is received from.
#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

/// A channel with room for this many messages. A channel with no room can only be closed.
pub(crate) fn bounded<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue {
            messages: VecDeque::new(),
            room,
            senders: 1,
            receivers: 1,
        }),
        changed: Condvar::new(),
        turns: Seat::current().map(|seat| seat.turns),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// A channel with room for all messages.
pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    bounded(usize::MAX)
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something came, went or was closed.
    fn stir(&self) {
        self.changed.notify_all();
        if let Some(turns) = &self.turns {
            turns.stir();
        }
    }

    /// Tries until there is an answer, or it is this time.
    fn wait<A>(
        &self,
        until: Option<Instant>,
        mut attempt: impl FnMut(&mut Queue<T>) -> Option<A>,
    ) -> Option<A> {
        if let (Some(seat), Some(_)) = (Seat::current(), &self.turns) {
            return seat.wait(until, || attempt(&mut self.lock()));
        }
        let mut queue = self.lock();
        loop {
            if let Some(answer) = attempt(&mut queue) {
                return Some(answer);
            }
            let left = until.map(|at| at.saturating_duration_since(Instant::now()));
            queue = match left {
                Some(left) if left.is_zero() => return None,
                Some(left) => {
                    let waited = self.changed.wait_timeout(queue, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.changed.wait(queue);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

impl<T> Sender<T> {
    /// Sends when there is room.
    pub(crate) fn send(&self, message: T) -> Result<(), NotNow> {
        let mut message = Some(message);
        let sent = self.0.wait(None, |queue| {
            if queue.receivers == 0 {
                return Some(Err(NotNow));
            }
            (queue.messages.len() < queue.room).then(|| {
                queue.messages.extend(message.take());
                Ok(())
            })
        });
        self.0.stir();
        give_way();
        sent.unwrap_or(Err(NotNow))
    }

    /// Sends where there is room.
    pub(crate) fn try_send(&self, message: T) -> Result<(), NotNow> {
        let mut queue = self.0.lock();
        if queue.receivers == 0 || queue.messages.len() >= queue.room {
            return Err(NotNow);
        }
        queue.messages.push_back(message);
        drop(queue);
        self.0.stir();
        Ok(())
    }
}

/// Sometimes whoever sends gives the turn away.
fn give_way() {
    if let Some(seat) = Seat::current() {
        let gives = seat.turns.lock().draw.once_in(RARELY);
        if gives {
            seat.rest(Standing::Ready);
        }
    }
}

impl<T> Receiver<T> {
    fn receive(&self, until: Option<Instant>) -> Result<T, NotNow> {
        let received = self
            .0
            .wait(until, |queue| match queue.messages.pop_front() {
                Some(message) => Some(Ok(message)),
                None => (queue.senders == 0).then_some(Err(NotNow)),
            });
        self.0.stir();
        received.unwrap_or(Err(NotNow))
    }

    /// The next message.
    pub(crate) fn recv(&self) -> Result<T, NotNow> {
        self.receive(None)
    }

    /// The next message, if it comes by then.
    pub(crate) fn recv_deadline(&self, deadline: Instant) -> Result<T, NotNow> {
        self.receive(Some(deadline))
    }

    /// Takes a message that is there already.
    pub(crate) fn try_recv(&self) -> Result<T, NotNow> {
        let received = self.0.lock().messages.pop_front();
        self.0.stir();
        received.ok_or(NotNow)
    }

    /// Goes through all messages until the channel is closed.
    pub(crate) const fn iter(&self) -> Messages<'_, T> {
        Messages(self)
    }
}

/// The messages of a channel.
#[derive(Debug)]
pub(crate) struct Messages<'a, T>(&'a Receiver<T>);

impl<T> Iterator for Messages<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<'a, T> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Messages<'a, T>;

    fn into_iter(self) -> Messages<'a, T> {
        self.iter()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.0.lock().receivers += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().senders -= 1;
        self.0.stir();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.receivers -= 1;
        let left = (queue.receivers == 0).then(|| core::mem::take(&mut queue.messages));
        drop(queue);
        // What was sent may hold other channels.
        drop(left);
        self.0.stir();
    }
}
