//! The thread of one server, which decides when the server is asked again.

use core::time::Duration;
use std::thread;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::publish::notify::Audience;
use crate::publish::notify::problem::Problem;
use crate::publish::notify::round::ServerRounds;

/// The pause after a first failure that may pass; further failures make it longer.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The pauses before the second and third attempt at the end of a run.
const LAST_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// One server's thread.
#[derive(Debug)]
pub(crate) struct ServerThread<A> {
    rounds: ServerRounds<A>,
    newest: Option<u64>,
    coming: Receiver<u64>,
    /// How many attempts in a row have failed in a way that may pass.
    failed: u32,
}

impl<A: Audience> ServerThread<A> {
    /// A thread that begins with this generation.
    pub(crate) const fn new(
        rounds: ServerRounds<A>,
        newest: Option<u64>,
        coming: Receiver<u64>,
    ) -> Self {
        Self {
            rounds,
            newest,
            coming,
            failed: 0,
        }
    }

    /// Runs until the sender of generations is gone.
    pub(crate) fn run(mut self) {
        loop {
            thread::sleep(self.rounds.rest());
            self.newest = self.coming.try_iter().last().or(self.newest);
            let problem = self.attempt();
            match self.coming.recv_timeout(self.pause(problem.as_ref())) {
                Ok(generation) => self.newest = Some(generation),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.farewell(problem),
            }
        }
    }

    fn attempt(&mut self) -> Option<Problem> {
        let problem = self.rounds.attempt(self.newest).err();
        self.failed = match &problem {
            Some(problem) if !problem.stays() => self.failed + 1,
            _ => 0,
        };
        problem
    }

    fn pause(&self, problem: Option<&Problem>) -> Duration {
        match problem {
            Some(problem) if !problem.stays() => back_off(self.failed),
            _ => self.rounds.poll(),
        }
    }

    /// Ends the thread with the run: the last published generation is worth a few more attempts.
    fn farewell(mut self, mut problem: Option<Problem>) {
        for pause in LAST_PAUSES {
            let may_pass = |problem: &Problem| !problem.stays() && !problem.is_silence();
            if !problem.as_ref().is_some_and(may_pass) {
                return;
            }
            thread::sleep(pause);
            problem = self.attempt();
        }
    }
}

/// The pause after this many failures: twice as long after each.
fn back_off(failed: u32) -> Duration {
    let doublings = failed.saturating_sub(1).min(10);
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute() {
        let seconds: Vec<_> = (0..9).map(|failed| back_off(failed).as_secs()).collect();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(back_off(u32::MAX), LONGEST_PAUSE);
    }
}
