//! Threads that go one at a time, by a seed: whoever waits (at a channel, for a thread's end, for a
//! time) gives its turn to one that may go on, and where none may, time passes to the next moment
//! that one waits for. So what a run does is a function of its seed.
//!
//! Threads that are not of a run ([`Turns::begin`]) know nothing of it: their channels, waits and
//! clock are the real ones.

pub(crate) mod channel;

use core::cell::RefCell;
use core::time::Duration;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Instant;

use crate::trials::draw::Draw;

/// When every run begins.
static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
/// A thread gives its turn away at one in this many messages, too.
const RARELY: usize = 4;

thread_local! {
    static SEAT: RefCell<Option<Seat>> = const { RefCell::new(None) };
}

/// The threads of one run.
#[derive(Debug)]
pub(crate) struct Turns(Mutex<TurnState>);

#[derive(Debug)]
struct TurnState {
    draw: Draw,
    seats: Vec<Standing>,
    threads: Vec<Option<Thread>>,
    /// Whose turn it is.
    holder: usize,
    /// Since the run began.
    now: Duration,
    /// Whether all wait, and no time would change that.
    is_stuck: bool,
}

/// Whether a thread can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The thread can go on.
    Ready,
    /// The thread looks again when another one has done something, or at this time.
    Waiting(Option<Duration>),
    /// The thread has ended.
    Gone,
}

/// The place of a thread among those of its run.
#[derive(Debug, Clone)]
struct Seat {
    turns: Arc<Turns>,
    number: usize,
}

/// The turns of a run, held by the thread that began it.
#[derive(Debug)]
pub(crate) struct Begun(Arc<Turns>);

/// The place of a thread that is to be started.
#[derive(Debug)]
pub(crate) struct Given(Option<Seat>);

/// Waits for a thread's end when it is dropped.
#[derive(Debug)]
pub(crate) struct Awaited(Option<Seat>);

/// Ends a thread's turns when it is dropped.
#[derive(Debug)]
pub(crate) struct Taken;

impl Turns {
    /// Begins a run whose first thread is this one.
    pub(crate) fn begin(seed: u64) -> Begun {
        let turns = Arc::new(Self(Mutex::new(TurnState {
            draw: Draw::new(seed),
            seats: vec![Standing::Ready],
            threads: vec![Some(std::thread::current())],
            holder: 0,
            now: Duration::ZERO,
            is_stuck: false,
        })));
        let seat = Seat {
            turns: Arc::clone(&turns),
            number: 0,
        };
        SEAT.set(Some(seat));
        Begun(turns)
    }

    fn lock(&self) -> MutexGuard<'_, TurnState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was done: whoever waits looks again.
    fn stir(&self) {
        for seat in &mut self.lock().seats {
            if let Standing::Waiting(_) = seat {
                *seat = Standing::Ready;
            }
        }
    }
}

impl TurnState {
    /// Gives the turn to one that may go on.
    fn pass_on(&mut self) {
        if !self.seats.contains(&Standing::Ready) {
            self.pass_time();
        }
        let ready = self.seats.iter().enumerate();
        let ready: Vec<_> = ready
            .filter_map(|(number, of)| (*of == Standing::Ready).then_some(number))
            .collect();
        if ready.is_empty() {
            self.is_stuck = self.seats.iter().any(|of| *of != Standing::Gone);
            self.threads.iter().flatten().for_each(Thread::unpark);
            return;
        }
        self.holder = *self.draw.of(&ready);
        if let Some(thread) = &self.threads[self.holder] {
            thread.unpark();
        }
    }

    fn pass_time(&mut self) {
        let times = self.seats.iter().filter_map(|of| match of {
            Standing::Waiting(until) => *until,
            _ => None,
        });
        let Some(next) = times.min() else {
            return;
        };
        self.now = self.now.max(next);
        for seat in &mut self.seats {
            if matches!(seat, Standing::Waiting(Some(until)) if *until <= self.now) {
                *seat = Standing::Ready;
            }
        }
    }
}

impl Seat {
    fn current() -> Option<Self> {
        // A thread that ends has none any more.
        SEAT.try_with(|seat| seat.borrow().clone()).ok().flatten()
    }

    /// Gives the turn away, and waits for the next one.
    fn rest(&self, standing: Standing) {
        let mut state = self.turns.lock();
        state.seats[self.number] = standing;
        state.pass_on();
        drop(state);
        self.await_turn();
    }

    fn await_turn(&self) {
        loop {
            let mut state = self.turns.lock();
            if state.is_stuck {
                return;
            }
            if state.holder == self.number {
                state.seats[self.number] = Standing::Ready;
                return;
            }
            drop(state);
            std::thread::park();
        }
    }

    /// Tries until there is an answer; `None` at that time, or where nothing would ever change.
    fn wait<T>(&self, until: Option<Instant>, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
        let until = until.map(|at| at.saturating_duration_since(*BEGUN));
        loop {
            let answer = attempt();
            let state = self.turns.lock();
            let is_over = state.is_stuck || until.is_some_and(|at| at <= state.now);
            drop(state);
            if answer.is_some() || is_over {
                return answer;
            }
            self.rest(Standing::Waiting(until));
        }
    }
}

impl Begun {
    /// Whether it came to a point at which all its threads waited for each other.
    pub(crate) fn was_stuck(&self) -> bool {
        self.0.lock().is_stuck
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        SEAT.set(None);
    }
}

impl Given {
    /// Takes the place, in the thread that was started, and waits for a first turn.
    pub(crate) fn take(self) -> Taken {
        if let Some(seat) = self.0 {
            seat.turns.lock().threads[seat.number] = Some(std::thread::current());
            SEAT.set(Some(seat.clone()));
            seat.await_turn();
        }
        Taken
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(seat) = SEAT.take() {
            seat.turns.stir();
            let mut state = seat.turns.lock();
            state.seats[seat.number] = Standing::Gone;
            state.pass_on();
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if let (Some(own), Some(other)) = (Seat::current(), &self.0) {
            let is_gone = || {
                let state = other.turns.lock();
                (state.seats[other.number] == Standing::Gone).then_some(())
            };
            let _ = own.wait(None, is_gone);
        }
    }
}

/// A place for a thread that this one is about to start.
pub(crate) fn place() -> (Given, Awaited) {
    let seat = Seat::current().map(|own| {
        let mut state = own.turns.lock();
        state.seats.push(Standing::Ready);
        state.threads.push(None);
        let number = state.seats.len() - 1;
        drop(state);
        Seat { number, ..own }
    });
    (Given(seat.clone()), Awaited(seat))
}

/// The time of this thread's run; `None` where it is of none.
pub(crate) fn now() -> Option<Instant> {
    Seat::current().map(|own| *BEGUN + own.turns.lock().now)
}

/// A number that the seed gives; `None` where this thread is of no run.
pub(crate) fn number() -> Option<u64> {
    Seat::current().map(|own| own.turns.lock().draw.bits())
}

/// Lets others go on for so long; false where this thread is of no run.
pub(crate) fn pause(time: Duration) -> bool {
    let Some(own) = Seat::current() else {
        return false;
    };
    let until = *BEGUN + own.turns.lock().now + time;
    own.wait::<()>(Some(until), || None);
    true
}
