//! A scenario and a fault, each a function of a number.

use qera_core::pseudo_random::SplitMix64;
use qera_tests::disk_shim::{Action, CallCount, Fault};

/// What a run begins with, and what it does with its shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scenario {
    /// Whether half of the shards were folded before.
    pub(crate) continues: bool,
    /// What the run does with shards that it has taken in.
    pub(crate) consume: &'static str,
    /// How W~ is made.
    pub(crate) rounding: &'static str,
}

impl Scenario {
    /// They come in turn.
    pub(crate) fn of(number: u64) -> Self {
        let turn = usize::try_from(number % 12).unwrap();
        Self {
            continues: turn % 2 == 1,
            consume: ["keep", "delete", "move"][turn / 2 % 3],
            rounding: ["nearest", "feedback"][turn / 6],
        }
    }
}

/// EIO, EACCES, ENFILE, ENOSPC.
const ERRORS: [i32; 4] = [5, 13, 23, 28];
/// How many calls in a row: one, as many as are tried, all that follow.
const TIMES: [usize; 3] = [1, 3, 100_000];

/// A fault that is drawn for a run.
#[derive(Debug)]
pub(crate) struct DrawnFault {
    /// What the run begins with.
    pub(crate) scenario: Scenario,
    /// What happens to the calls.
    pub(crate) action: Action,
    call: String,
    nth: usize,
    times: usize,
}

impl DrawnFault {
    /// Any of the calls that the run makes without it, every kind as often as the others.
    pub(crate) fn new(number: u64, calls: &[CallCount]) -> Self {
        let mut sequence = SplitMix64::new(SplitMix64::new(number).next_bits());
        let mut below = |end: usize| usize::try_from(sequence.next_bits() >> 1).unwrap() % end;
        let CallCount { call, count } = &calls[below(calls.len())];
        let moves_bytes = call == "read" || call == "write";
        let action = match below(8) {
            0..=2 => Action::Kill,
            3 => Action::Cut,
            4 if moves_bytes => Action::Shorten,
            _ => Action::Fail(ERRORS[below(ERRORS.len())]),
        };
        Self {
            scenario: Scenario::of(number),
            action,
            call: call.clone(),
            nth: 1 + below(*count),
            times: TIMES[below(TIMES.len())],
        }
    }

    /// The fault in the form that the shim takes, for paths below a folder.
    pub(crate) fn fault<'a>(&'a self, folder: &'a str) -> Fault<'a> {
        Fault {
            call: &self.call,
            path: folder,
            nth: self.nth,
            times: self.times,
            action: self.action,
        }
    }
}
