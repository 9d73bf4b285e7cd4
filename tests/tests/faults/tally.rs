//! What was run, and what was found: added up over runs of the tests in a file, a line for each
//! kind of trial.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use qera_tests::tier::cases;

/// Kinds of trials run beside each other, and write one file.
static ALONE: Mutex<()> = Mutex::new(());

/// Figures of one kind of trial.
#[derive(Debug)]
pub(crate) struct Tally {
    kind: &'static str,
    /// Numbers that are done.
    pub(crate) cases: u64,
    /// Processes.
    pub(crate) runs: u64,
    /// How many runs were killed.
    pub(crate) kills: u64,
    /// How many runs had a disk that failed.
    pub(crate) faults: u64,
    lost: u64,
    double: u64,
}

/// How many trials there are to be.
pub(crate) fn runs_asked() -> u64 {
    let asked = std::env::var("QERA_CRASH");
    asked.map_or_else(|_| cases(36, 120), |asked| asked.parse().unwrap())
}

fn ledger() -> Option<PathBuf> {
    std::env::var_os("QERA_CRASH_LEDGER").map(PathBuf::from)
}

impl Tally {
    /// The figures that the ledger has for this kind.
    pub(crate) fn before(kind: &'static str) -> Self {
        let text = ledger().and_then(|path| std::fs::read_to_string(path).ok());
        let text = text.unwrap_or_default();
        let mut figures = [0; 6];
        for line in text.lines() {
            let mut words = line.split(' ');
            if words.next() == Some(kind) {
                figures = core::array::from_fn(|_| words.next().unwrap().parse().unwrap());
            }
        }
        let [cases, runs, kills, faults, lost, double] = figures;
        Self {
            kind,
            cases,
            runs,
            kills,
            faults,
            lost,
            double,
        }
    }

    /// Enters fewer or more than there should be.
    pub(crate) fn compare(&mut self, found: u64, expected: u64) {
        self.lost += u64::from(found < expected);
        self.double += u64::from(found > expected);
    }

    /// Whether nothing was lost or counted twice.
    pub(crate) fn is_sound(&self) -> bool {
        self.lost == 0 && self.double == 0
    }

    /// Writes it into the ledger, in place of what was there of this kind.
    pub(crate) fn keep(&self) {
        let Self {
            kind,
            cases,
            runs,
            kills,
            faults,
            lost,
            double,
        } = self;
        let line = format!("{kind} {cases} {runs} {kills} {faults} {lost} {double}\n");
        eprintln!("{line}");
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = ledger() {
            let before = std::fs::read_to_string(&path).unwrap_or_default();
            let others = before
                .lines()
                .filter(|of| of.split(' ').next() != Some(*kind));
            let others: String = others.map(|of| format!("{of}\n")).collect();
            std::fs::write(path, others + &line).unwrap();
        }
    }
}
