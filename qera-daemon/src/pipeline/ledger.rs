//! The ledger: what came, and what is folded, solved and published. Every stage enters what it
//! does, and decisions read it. `status.json` is a picture of it that is drawn at most once a
//! second; only the next run reads that file.

use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::disk::clock;
use crate::judge::progress::LayerSummary;
use crate::observe::notify_events::ServerStatus;
use crate::observe::run_events::GenerationRejected;
use crate::observe::status::{Phase, Status};
use crate::observe::waiting::WaitingForConvergence;
use crate::pipeline::entries::{LayerEntry, LedgerEntries, Refusals, RelativeErrors};
use crate::solve::solution::Failure;
use crate::state::StateFolder;

/// How long the status stays as it is,
const PERIOD: Duration = Duration::from_secs(1);
/// and how many times as long as it took to write: with hundreds of thousands of layers that is no
/// small part of a second.
const PAUSE: u32 = 20;

/// The ledger of a run.
#[derive(Debug)]
pub(crate) struct Ledger<'a> {
    entries: Mutex<LedgerEntries>,
    /// The folder in which the status is written; `None` for `solve`, which writes none.
    state: Option<&'a StateFolder>,
    /// The last writing of the status. The lock is held during the writing, so that an older
    /// picture never replaces a newer one.
    written: Mutex<Option<DrawnStatus>>,
}

/// A writing of the status.
#[derive(Debug, Clone, Copy)]
struct DrawnStatus {
    at: Instant,
    took: Duration,
}

impl DrawnStatus {
    /// Whether it is time for another one.
    fn is_old(self) -> bool {
        clock::since(self.at) >= PERIOD.max(self.took * PAUSE)
    }
}

/// Rows that one site has in a shard.
#[derive(Debug)]
pub(crate) struct DealtRows<'a> {
    /// Index of the site.
    pub(crate) site: usize,
    /// The site's name.
    pub(crate) name: &'a str,
    /// The site's layers; empty where there is no checkpoint.
    pub(crate) layers: &'a [usize],
    /// The number of rows.
    pub(crate) rows: u64,
}

/// The latest correction of a layer, as the ledger has it.
#[derive(Debug)]
pub(crate) struct CorrectionEntry {
    /// Index of the layer.
    pub(crate) layer: usize,
    /// Rows that the correction was solved from.
    pub(crate) rows: u64,
    /// The layer's errors with and without the correction.
    pub(crate) errors: RelativeErrors,
}

impl<'a> Ledger<'a> {
    /// Begins a ledger with these entries, and writes the status.
    #[must_use]
    pub(crate) fn begin(state: Option<&'a StateFolder>, entries: LedgerEntries) -> Self {
        let ledger = Self {
            entries: Mutex::new(entries),
            state,
            written: Mutex::new(None),
        };
        ledger.flush();
        ledger
    }

    /// Enters that a shard's rows went to the workers. The statistics hold `shards` shards with it.
    pub(crate) fn shard_dealt(&self, shards: usize, dealt: &[DealtRows<'_>]) {
        self.enter(|entries| {
            entries.phase = Phase::Folding;
            entries.waiting = None;
            entries.shards = shards;
            for of_site in dealt {
                for &layer in of_site.layers {
                    entries.layers[layer].rows += of_site.rows;
                }
                if of_site.layers.is_empty() {
                    entries.gather(of_site.site, of_site.name, of_site.rows);
                }
            }
        });
    }

    /// Enters a shard whose content had come before.
    pub(crate) fn shard_repeated(&self) {
        self.enter(|entries| entries.duplicates += 1);
    }

    /// Enters a shard that was set aside.
    pub(crate) fn shard_refused(&self, reason: String) {
        self.enter(|entries| entries.refusals.push(reason));
    }

    /// Enters a shard that was gone before a snapshot held it.
    pub(crate) fn shard_lost(&self) {
        self.enter(|entries| entries.lost += 1);
    }

    /// Enters how many files of the folder are not complete.
    pub(crate) fn files_incomplete(&self, count: usize) {
        self.enter(|entries| entries.incomplete = count);
    }

    /// What of the folder the disk does not give.
    pub(crate) fn unanswered(&self, names: Vec<String>) {
        self.enter(|entries| entries.unanswered = names);
    }

    /// What of the folder the disk did not give when it was tried last.
    pub(crate) fn left_behind(&self) -> Vec<String> {
        self.lock().unanswered.clone()
    }

    /// Enters how many of the rows dealt to these layers were left out so far.
    pub(crate) fn rows_skipped(&self, layers: &[usize], rows: u64) {
        self.enter(|entries| {
            for &layer in layers {
                let entry = &mut entries.layers[layer];
                entry.rows = entry.rows + entry.summary.rows_skipped - rows;
                entry.summary.rows_skipped = rows;
            }
        });
    }

    /// Enters the time that folding rows took.
    pub(crate) fn fold_took(&self, time: Duration) {
        self.enter(|entries| entries.work.accumulate += time);
    }

    /// Enters the time that a solve took, and how much of it was scoring.
    pub(crate) fn solve_took(&self, time: Duration, scoring: Duration) {
        self.enter(|entries| {
            entries.work.solve += time.saturating_sub(scoring);
            entries.work.score += scoring;
        });
    }

    /// Enters a solve point at which no layer of the site could gain by a solve.
    pub(crate) fn solve_spared(&self) {
        self.enter(|entries| entries.work.spared += 1);
    }

    /// Enters what a solve point showed of a layer; returns the entry from before.
    pub(crate) fn judged(&self, layer: usize, summary: LayerSummary) -> LayerEntry {
        self.enter(|entries| {
            let entry = &mut entries.layers[layer];
            let before = entry.clone();
            entry.summary = LayerSummary {
                rows_skipped: entry.summary.rows_skipped,
                ..summary
            };
            before
        })
    }

    /// Enters that W~ of these layers is made.
    pub(crate) fn rounded(&self, layers: &[usize]) {
        self.enter(|entries| {
            for &layer in layers {
                entries.layers[layer].rounds_at = None;
            }
        });
    }

    /// Enters that these layers wait for more rows before they are rounded. Returns whether this is
    /// still to be said.
    pub(crate) fn gathers(&self, layers: &[usize]) -> bool {
        self.enter(|entries| {
            let mut new = false;
            for &layer in layers {
                let said = core::mem::replace(&mut entries.layers[layer].gathering_said, true);
                new |= !said && entries.layers[layer].rounds_at.is_some();
            }
            new
        })
    }

    /// Enters that a layer was not solved, or not to any good.
    pub(crate) fn failed(&self, layer: usize, failure: Failure) {
        self.enter(|entries| {
            let entry = &mut entries.layers[layer];
            entry.failed = Some(failure);
            if failure == Failure::Harmful {
                (entry.rows_of_correction, entry.stood_in, entry.errors) = (0, false, None);
            }
        });
    }

    /// The number of layers without a new correction from the last attempt.
    pub(crate) fn failed_layers(&self) -> usize {
        let entries = self.lock();
        entries
            .layers
            .iter()
            .filter(|entry| entry.failed.is_some())
            .count()
    }

    /// Enters a layer's new correction.
    pub(crate) fn corrected(&self, correction: &CorrectionEntry) {
        self.enter(|entries| {
            let entry = &mut entries.layers[correction.layer];
            entry.rows_of_correction = correction.rows;
            entry.stood_in = false;
            entry.failed = None;
            entry.errors = Some(correction.errors);
        });
    }

    /// Enters that an imatrix stands in for the rows of a layer.
    pub(crate) fn stood_in(&self, layer: usize) {
        self.enter(|entries| entries.layers[layer].stood_in = true);
    }

    /// Enters that a generation is in place.
    pub(crate) fn published(&self, generation: u64) {
        let mut entries = self.lock();
        entries.generation = Some(generation);
        entries.rejected = None;
        drop(entries);
        self.flush();
    }

    /// Enters that a generation did not pass its check.
    pub(crate) fn rejected(&self, rejected: GenerationRejected) {
        self.lock().rejected = Some(rejected);
        self.flush();
    }

    /// Enters what was seen of a server of `--notify`. If that is new the status is written at
    /// once. Servers stand in the order of their URLs, whichever of them answered first.
    pub(crate) fn server_seen(&self, status: &ServerStatus) {
        let mut entries = self.lock();
        let key = (&status.server, &status.name);
        let found = entries
            .servers
            .binary_search_by(|other| (&other.server, &other.name).cmp(&key));
        match found {
            Ok(at) if entries.servers[at] == *status => return,
            Ok(at) => entries.servers[at].clone_from(status),
            Err(at) => entries.servers.insert(at, status.clone()),
        }
        drop(entries);
        self.flush();
    }

    /// Enters that everything in the folder is folded and published, and what `--until-converged`
    /// waits for.
    pub(crate) fn rest(&self, waiting: Option<WaitingForConvergence>) {
        self.change_phase(Phase::Idle, waiting);
    }

    /// Enters that the daemon has ended.
    pub(crate) fn stop(&self) {
        self.change_phase(Phase::Stopped, None);
    }

    fn change_phase(&self, phase: Phase, waiting: Option<WaitingForConvergence>) {
        let mut entries = self.lock();
        (entries.phase, entries.waiting) = (phase, waiting);
        drop(entries);
        self.flush();
    }

    /// The entry of every layer, as it is now; of every site where there is no checkpoint.
    pub(crate) fn layers(&self) -> Vec<LayerEntry> {
        self.lock().layers.clone()
    }

    /// The number of shards in the statistics.
    pub(crate) fn shards(&self) -> usize {
        self.lock().shards
    }

    /// The shards that were set aside in this run.
    pub(crate) fn refusals(&self) -> Refusals {
        self.lock().refusals.clone()
    }

    /// The status that `status` shows.
    pub(crate) fn status(&self) -> Status {
        self.lock().status()
    }

    /// Writes the status.
    pub(crate) fn flush(&self) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&mut written);
    }

    /// Enters a change. The status is written if the last writing was long enough ago. A stage
    /// does not wait while another one writes.
    fn enter<T>(&self, change: impl FnOnce(&mut LedgerEntries) -> T) -> T {
        let answer = change(&mut self.lock());
        if let Ok(mut written) = self.written.try_lock()
            && written.is_none_or(DrawnStatus::is_old)
        {
            self.write(&mut written);
        }
        answer
    }

    fn write(&self, written: &mut Option<DrawnStatus>) {
        let at = clock::now();
        if let Some(state) = self.state {
            // A failed writing is ignored: no decision depends on this file, and a full disk is met
            // and reported by the writings that matter.
            let _ = state.save_status(&self.status());
        }
        let took = clock::since(at);
        *written = Some(DrawnStatus { at, took });
    }

    fn lock(&self) -> MutexGuard<'_, LedgerEntries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::progress::Folding;
    use crate::observe::status::Standing;

    fn of_one_layer() -> Ledger<'static> {
        let layer = LayerEntry {
            name: "a".into(),
            ..LayerEntry::default()
        };
        let entries = LedgerEntries {
            out: Some("out".into()),
            layers: vec![layer],
            ..LedgerEntries::default()
        };
        Ledger::begin(None, entries)
    }

    fn deal(ledger: &Ledger<'_>, layers: &[usize], rows: u64) {
        let dealt = DealtRows {
            site: 0,
            name: "a",
            layers,
            rows,
        };
        ledger.shard_dealt(1, &[dealt]);
    }

    #[test]
    fn a_status_that_takes_long_is_written_seldom() {
        let ago = |seconds, took| DrawnStatus {
            at: Instant::now() - Duration::from_secs(seconds),
            took: Duration::from_millis(took),
        };
        assert!(ago(1, 0).is_old() && ago(2, 50).is_old() && ago(21, 1000).is_old());
        assert!(!ago(0, 0).is_old() && !ago(2, 500).is_old() && !ago(19, 1000).is_old());
    }

    #[test]
    fn a_layer_is_starved_then_waiting_then_solved_then_what_its_evidence_says() {
        let ledger = of_one_layer();
        let standing = || ledger.status().layers[0].status;
        assert_eq!(standing(), Standing::Starved);
        deal(&ledger, &[0], 10);
        assert_eq!(standing(), Standing::Waiting);
        let errors = RelativeErrors {
            of_window: false,
            without: 2.0,
            with: Some(1.0),
        };
        ledger.corrected(&CorrectionEntry {
            layer: 0,
            rows: 10,
            errors,
        });
        assert_eq!(standing(), Standing::Solved);
        let known = |converged, folding| LayerSummary {
            converged,
            folding,
            ..LayerSummary::default()
        };
        for (converged, folding, expected) in [
            (true, Folding::Open, Standing::Converged),
            (true, Folding::Closed, Standing::Closed),
            (false, Folding::Reopened, Standing::Reopened),
            (false, Folding::Open, Standing::Solved),
        ] {
            ledger.judged(0, known(converged, folding));
            assert_eq!(standing(), expected);
        }
    }

    #[test]
    fn an_imatrix_stands_in_until_a_correction_from_rows_is_there() {
        let ledger = of_one_layer();
        let standing = || ledger.status().layers[0].status;
        ledger.stood_in(0);
        assert_eq!(standing(), Standing::Imatrix);
        deal(&ledger, &[0], 10);
        assert_eq!(standing(), Standing::Imatrix);
        assert!(ledger.status().layers[0].error_without.is_none());
        ledger.corrected(&CorrectionEntry {
            layer: 0,
            rows: 10,
            errors: RelativeErrors {
                of_window: false,
                without: 2.0,
                with: Some(1.0),
            },
        });
        assert_eq!(standing(), Standing::Solved);
    }

    #[test]
    fn a_layer_gathers_until_it_is_rounded_and_that_is_said_once() {
        let ledger = of_one_layer();
        ledger.lock().layers[0].rounds_at = Some(40);
        let shown = || ledger.status().layers[0].clone();
        assert_eq!(shown().status, Standing::Starved);
        deal(&ledger, &[0], 10);
        assert_eq!(shown().status, Standing::Gathering);
        assert_eq!((shown().rows, shown().rounds_at), (10, Some(40)));
        let table = ledger.status().table();
        assert!(table.contains("1 layers gather rows before they are rounded; a has 10 of 40"));
        assert!(ledger.gathers(&[0]) && !ledger.gathers(&[0]));
        ledger.rounded(&[0]);
        assert_eq!(
            (shown().status, shown().rounds_at),
            (Standing::Waiting, None)
        );
    }

    #[test]
    fn rows_folded_and_rows_skipped_add_up_to_those_dealt() {
        let ledger = of_one_layer();
        deal(&ledger, &[0], 10);
        ledger.rows_skipped(&[0], 4);
        deal(&ledger, &[0], 10);
        ledger.rows_skipped(&[0], 9);
        ledger.judged(0, LayerSummary::default());
        let shown = &ledger.status().layers[0];
        assert_eq!((shown.rows, shown.rows_skipped), (11, 9));
    }

    #[test]
    fn a_generation_that_did_not_pass_is_shown_until_one_is_published() {
        let ledger = of_one_layer();
        ledger.published(1);
        ledger.rejected(GenerationRejected {
            generation: 2,
            problems: vec!["lora_A".into()],
            more: 0,
        });
        let shown = ledger.status();
        assert_eq!(shown.generation, Some(1));
        let said = "generation 1\ngeneration 2 is not published: 1 problems in its files; lora_A\n";
        assert!(shown.table().contains(said), "{}", shown.table());
        ledger.published(2);
        assert!(ledger.status().rejected.is_none());
    }

    #[test]
    fn without_a_checkpoint_sites_are_counted_as_they_come() {
        let ledger = Ledger::begin(None, LedgerEntries::default());
        deal(&ledger, &[], 3);
        deal(&ledger, &[], 4);
        let shown = &ledger.status().layers[0];
        assert_eq!((shown.status, shown.rows), (Standing::Gathered, 7));
        (0..150).for_each(|number| ledger.shard_refused(format!("{number}")));
        let status = ledger.status();
        assert_eq!((status.quarantined, status.reasons.len()), (150, 100));
    }
}
