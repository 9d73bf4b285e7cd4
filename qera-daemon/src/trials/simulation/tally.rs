//! What was run, and what was found: added up in a file over the runs of the test.

use std::path::PathBuf;

/// How the ledger's line of these begins.
const KIND: &str = "simulated";

/// Figures of histories.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Histories.
    pub(super) cases: u64,
    /// Runs of the daemon.
    pub(super) runs: u64,
    /// How many runs were cut off.
    pub(super) kills: u64,
    /// How many runs met a failing disk.
    pub(super) faults: u64,
    /// Shards and layers that lack rows.
    pub(super) lost: u64,
    /// Shards and layers whose rows are counted twice.
    pub(super) double: u64,
}

fn ledger() -> Option<PathBuf> {
    std::env::var_os("QERA_CRASH_LEDGER").map(PathBuf::from)
}

fn lines() -> Vec<String> {
    let text = ledger().and_then(|path| std::fs::read_to_string(path).ok());
    let text = text.unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn is_own(line: &str) -> bool {
    line.split(' ').next() == Some(KIND)
}

impl Tally {
    /// The figures of the ledger.
    pub(super) fn before() -> Self {
        let mut tally = Self::default();
        if let Some(own) = lines().into_iter().find(|line| is_own(line)) {
            let numbers = own.split(' ').skip(1).map(|of| of.parse().unwrap());
            for (figure, number) in tally.figures_mut().into_iter().zip(numbers) {
                *figure = number;
            }
        }
        tally
    }

    const fn figures_mut(&mut self) -> [&mut u64; 6] {
        [
            &mut self.cases,
            &mut self.runs,
            &mut self.kills,
            &mut self.faults,
            &mut self.lost,
            &mut self.double,
        ]
    }

    /// Adds those of another.
    pub(super) fn add(&mut self, mut other: Self) {
        for (own, other) in self.figures_mut().into_iter().zip(other.figures_mut()) {
            *own += *other;
        }
    }

    /// Whether nothing was lost or counted twice.
    pub(super) const fn is_sound(&self) -> bool {
        self.lost == 0 && self.double == 0
    }

    /// As the ledger has it.
    pub(super) fn line(&self) -> String {
        let figures = self.clone().figures_mut().map(|figure| figure.to_string());
        format!("{KIND} {}", figures.join(" "))
    }

    /// Writes it into the ledger, in place of what was there.
    pub(super) fn keep(&self) {
        if let Some(path) = ledger() {
            let mut lines = lines();
            lines.retain(|line| !is_own(line));
            lines.push(self.line());
            let aside = path.with_extension("aside");
            std::fs::write(&aside, lines.join("\n") + "\n").unwrap();
            std::fs::rename(aside, path).unwrap();
        }
    }
}
