//! What makes a crash cost nothing: snapshots, and folding again what the newest one lacks of the
//! journal.

use core::time::Duration;
use std::time::Instant;

use crate::disk::clock;
use crate::error::Fatal;
use crate::observe::event::Event;
use crate::pipeline::feeder::Feeder;
use crate::state::journal::Record;

/// A snapshot is made after so much time with new rows, so that a crash costs no more reading than
/// that.
const SAVE_PERIOD: Duration = Duration::from_secs(60);
/// And not before this many times what the last one took.
const SAVE_PAUSE: u32 = 20;

impl Feeder<'_> {
    /// Folds what the journal has beyond the snapshot. A file that is gone, or that is another by
    /// now, is lost: said with its rows, and new again should it come back.
    pub(crate) fn replay(&mut self) -> Result<(), Fatal> {
        let done = self.supply.gathered.position;
        let records = self.supply.journal.records().iter();
        let tail: Vec<Record> = records.filter(|r| r.number > done).cloned().collect();
        for record in &tail {
            if !self.context.going() {
                self.cut_short = true;
                return Ok(());
            }
            match self.supply.read_again(record) {
                Ok(again) => {
                    self.supply.grow_to(again.fitting.grown)?;
                    let identity = again.file.identity;
                    self.supply.accept(record, again.file);
                    self.supply
                        .intake
                        .done_with(record.name.clone().into(), identity);
                    self.deal(again.shard, again.fitting.admitted.ignored_keys);
                }
                Err(refusal) => {
                    self.supply.journal.lose(record.number)?;
                    self.context.reporter.say(&Event::ShardLost {
                        shard: &record.name,
                        rows: record.rows,
                        reason: refusal.reason.to_string(),
                    });
                    self.context.ledger.shard_lost();
                }
            }
        }
        Ok(())
    }

    /// When a snapshot is due.
    pub(crate) fn save_at(&self) -> Option<Instant> {
        let period = SAVE_PERIOD.max(self.saving * SAVE_PAUSE);
        self.unsaved_since.map(|at| at + period)
    }

    /// Saves where it is time.
    pub(crate) fn save_when_due(&mut self) -> Result<(), Fatal> {
        if self.save_at().is_some_and(|at| clock::now() >= at) {
            self.save()?;
        }
        Ok(())
    }

    /// Saves what is new, before it is solved: a solve takes its time, and may be cut short by a
    /// second signal.
    pub(crate) fn save_new(&mut self) -> Result<(), Fatal> {
        if self.unsaved_since.is_some() {
            self.save()?;
        }
        Ok(())
    }

    /// Consumes what a snapshot holds; what cannot be is said, and stays.
    pub(crate) fn consume(&mut self) {
        for message in self.supply.consume() {
            self.context.warn_of("watched folder", message);
        }
    }

    /// Makes a snapshot; then the shards in it need not exist any more.
    fn save(&mut self) -> Result<(), Fatal> {
        let begun = clock::now();
        self.supply.journal.sync()?;
        let folder = self.supply.state.begin_snapshot()?;
        let Some(sites) = self.dealer.save(&folder, &self.supply.sites)? else {
            return Ok(());
        };
        self.supply.commit(&folder, sites)?;
        self.unsaved_since = None;
        self.saving = clock::since(begun);
        self.consume();
        Ok(())
    }
}
