//! What was run, and what was found: added up over runs of the tests in a file, a line for each
//! kind of trial.

use std::fs;
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
        let text = ledger().and_then(|path| fs::read_to_string(path).ok());
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

    /// As the ledger has it.
    fn line(&self) -> String {
        let Self {
            kind,
            cases,
            runs,
            kills,
            faults,
            lost,
            double,
        } = self;
        format!("{kind} {cases} {runs} {kills} {faults} {lost} {double}")
    }

    /// Says it.
    pub(crate) fn say(&self) {
        eprintln!("{}", self.line());
    }

    /// Writes it into the ledger, in place of what was there of this kind.
    pub(crate) fn keep(&self) {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = ledger() else {
            return;
        };
        let before = fs::read_to_string(&path).unwrap_or_default();
        let is_other = |line: &&str| line.split(' ').next() != Some(self.kind);
        let others: String = before
            .lines()
            .filter(is_other)
            .map(|of| format!("{of}\n"))
            .collect();
        let aside = path.with_extension("aside");
        fs::write(&aside, others + &self.line() + "\n").unwrap();
        fs::rename(aside, path).unwrap();
    }
}
