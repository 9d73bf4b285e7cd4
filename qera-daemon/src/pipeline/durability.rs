//! Snapshots, and the folding again of shards that the journal has and the newest snapshot has not.
//! Together they make sure that a crash loses nothing.

use core::time::Duration;
use std::time::Instant;

use crate::disk::clock;
use crate::error::Fatal;
use crate::host::core_time::{WorkKind, doing};
use crate::observe::event::Event;
use crate::pipeline::dealer::DealtShard;
use crate::pipeline::feeder::Feeder;
use crate::pipeline::task::ShardPart;
use crate::source::refusal::{Reason, Refusal};
use crate::state::journal::Record;

/// While new rows come, a snapshot is made after this time, so that a crash costs no more reading
/// than that.
const SAVE_PERIOD: Duration = Duration::from_secs(60);
/// The next snapshot waits at least this many times as long as the last one took to write.
const SAVE_PAUSE: u32 = 20;

impl Feeder<'_> {
    /// Folds the shards that the journal has beyond the snapshot. A file that is gone, or is
    /// another by now, is lost: that is said with its rows, and the shard is new if it comes again.
    ///
    /// # Errors
    /// [`Fatal::Io`], also for a shard that the disk does not give: such a shard is not lost.
    pub(crate) fn replay(&mut self) -> Result<(), Fatal> {
        self.catch_up()?;
        let done = self.supply.gathered.position;
        for record in &self.journaled_after(done) {
            if self.cut_short || !self.context.going() {
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
                    let ignored_keys = again.fitting.admitted.ignored_keys;
                    self.deal(again.shard, again.ticket, ignored_keys);
                }
                Err(refusal) => {
                    let reason = self.lost_for(record, refusal)?;
                    self.supply.journal.lose(record.number)?;
                    self.context.reporter.say(&Event::ShardLost {
                        shard: &record.name,
                        rows: record.rows,
                        reason: reason.to_string(),
                    });
                    self.context.ledger.shard_lost();
                }
            }
        }
        Ok(())
    }

    /// Folds, for sites that are behind and for these alone, the shards that the other sites have.
    /// If the run is stopped before that is done, it saves nothing: the snapshots that are there
    /// are better.
    fn catch_up(&mut self) -> Result<(), Fatal> {
        let behind = core::mem::take(&mut self.supply.behind);
        let Some(&first) = behind.values().min() else {
            return Ok(());
        };
        let done = self.supply.gathered.position;
        let mut records = self.journaled_after(first);
        records.retain(|record| record.number <= done);
        for record in &records {
            if !self.context.going() {
                self.cut_short = true;
                return Ok(());
            }
            let lacks = |site: usize| behind.get(&site).is_some_and(|&at| at < record.number);
            let again = match self.supply.read_again(record) {
                Ok(again) => again,
                Err(refusal) => {
                    let reason = self.lost_for(record, refusal)?;
                    let message = format!(
                        "{} rows of {} are lost for the inputs that are folded again ({reason})",
                        record.rows, record.name
                    );
                    self.context.warn_of("state", message);
                    self.context.ledger.shard_lost();
                    continue;
                }
            };
            let mut part = ShardPart::of(again.shard);
            part.rows.retain(|batch| lacks(batch.site));
            part.sums.retain(|sum| lacks(sum.site));
            // The statistics count as being of that earlier position, so that nothing solved from
            // them passes for a solution of all shards.
            let gathered = self.supply.journal.gathered(record.number);
            self.supply.consumable.push(again.file);
            let ticket = again.ticket;
            let dealt =
                self.dealer
                    .deal(&self.supply.sites, &gathered, DealtShard { part, ticket });
            if dealt.is_err() {
                return Ok(()); // A worker ended early; the caller reports why.
            }
        }
        // This is also set where nothing of the shard is left, because a snapshot settles that it
        // is lost.
        self.unsaved_since = Some(clock::now());
        Ok(())
    }

    fn journaled_after(&self, position: u64) -> Vec<Record> {
        let records = self.supply.journal.records().iter();
        records.filter(|r| r.number > position).cloned().collect()
    }

    /// Why a shard of the journal is lost.
    ///
    /// # Errors
    /// [`Fatal::Io`] where the shard may still be there, unless its loss is accepted.
    fn lost_for(&self, record: &Record, refusal: Refusal) -> Result<Reason, Fatal> {
        if !self.context.settings.accept_loss {
            refusal.if_failed(&self.supply.intake.folder().join(&record.name))?;
        }
        Ok(refusal.reason)
    }

    /// The time at which a snapshot is due.
    pub(crate) fn save_at(&self) -> Option<Instant> {
        let period = SAVE_PERIOD.max(self.saving * SAVE_PAUSE);
        self.unsaved_since.map(|at| at + period)
    }

    /// Saves a snapshot if one is due.
    pub(crate) fn save_when_due(&mut self) -> Result<(), Fatal> {
        if self.save_at().is_some_and(|at| clock::now() >= at) {
            self.save()?;
        }
        Ok(())
    }

    /// Saves what is new before it is solved: a solve takes long, and a second signal may cut it
    /// short.
    pub(crate) fn save_new(&mut self) -> Result<(), Fatal> {
        if self.unsaved_since.is_some() {
            self.save()?;
        }
        Ok(())
    }

    /// Consumes the files whose rows a snapshot holds. A file that cannot be consumed stays, and
    /// that is said.
    pub(crate) fn consume(&mut self) {
        for message in self.supply.consume() {
            self.context.warn_of("watched folder", message);
        }
    }

    /// Makes a snapshot. After that the shards in it need not exist any more.
    fn save(&mut self) -> Result<(), Fatal> {
        let begun = clock::now();
        self.supply.journal.sync()?;
        let folder = self.supply.state.begin_snapshot()?;
        let Some(sites) = self.dealer.save(&folder, &self.supply.sites)? else {
            return Ok(());
        };
        doing(WorkKind::Write, || self.supply.commit(&folder, sites))?;
        self.unsaved_since = None;
        self.saving = clock::since(begun);
        self.consume();
        Ok(())
    }
}
