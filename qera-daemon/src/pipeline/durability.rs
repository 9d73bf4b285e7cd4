//! What makes a crash cost nothing: snapshots, and folding again what the newest one lacks of the journal.

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::unbounded;

use crate::disk::identity::Identity;
use crate::error::Fatal;
use crate::observe::event::Event;
use crate::pipeline::feeder::Feeder;
use crate::pipeline::source::Source;
use crate::pipeline::worker::Task;
use crate::source::intake::content;
use crate::source::refusal::{Reason, Refusal};
use crate::source::rows::{Shard, read};
use crate::source::shard::ShardHeader;
use crate::state::journal::Record;
use crate::state::snapshot::Index;
use crate::weights::sites::Sites;

/// A snapshot is made after so much time with new rows, so that a crash costs no more reading than that.
const SAVE_PERIOD: Duration = Duration::from_secs(60);
/// And not before this many times what the last one took.
const SAVE_PAUSE: u32 = 20;

impl Feeder<'_> {
    /// Folds what the journal has beyond the snapshot. A file that is gone, or that is another by now, is lost: said with
    /// its rows, and new again should it come back.
    pub(crate) fn replay(&mut self, source: &mut Source<'_>) -> Result<(), Fatal> {
        let done = source.gathered.position;
        let records = source.journal.records().iter();
        let tail: Vec<Record> = records.filter(|r| r.number > done).cloned().collect();
        for record in &tail {
            if !self.going() {
                self.cut_short = true;
                return Ok(());
            }
            let again = again(source, record);
            match again {
                Ok((identity, ignored_keys, shard, grown)) => {
                    source.grow_to(grown)?;
                    source.gathered.advance(record);
                    source.intake.accept(record.content.clone());
                    source
                        .intake
                        .done_with(record.name.clone().into(), identity);
                    source.consumable.push((record.name.clone(), identity));
                    self.deal(source, shard, ignored_keys)?;
                }
                Err(refusal) => {
                    source.journal.lose(record.number)?;
                    self.shared.reporter.say(&Event::ShardLost {
                        shard: &record.name,
                        rows: record.rows,
                        reason: refusal.reason.to_string(),
                    });
                    self.shared.board.update(|status| status.lost += 1);
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

    /// Saves what is new, before it is solved: a solve takes its time, and may be cut short by a second signal.
    pub(crate) fn save_new(&mut self, source: &mut Source<'_>) -> Result<(), Fatal> {
        if self.unsaved_since.is_some() {
            self.save(source)?;
        }
        Ok(())
    }

    /// Consumes what a snapshot holds; what cannot be is said, and stays.
    pub(crate) fn consume(&self, source: &mut Source<'_>) {
        for message in source.consume() {
            self.shared.reporter.say(&Event::Warning {
                subject: "watched folder",
                message,
            });
        }
    }

    /// Makes a snapshot; then the shards in it need not exist any more.
    pub(crate) fn save(&mut self, source: &mut Source<'_>) -> Result<(), Fatal> {
        let begun = Instant::now();
        source.journal.sync()?;
        let folder = source.state.begin_snapshot()?;
        let keys = source.sites.sites.iter().map(|s| s.key.clone()).collect();
        let keys: Arc<Vec<String>> = Arc::new(keys);
        let (saved, sites) = unbounded();
        for task in &self.tasks {
            let _ = task.send(Task::Save {
                folder: folder.clone(),
                keys: Arc::clone(&keys),
                saved: saved.clone(),
            });
        }
        drop(saved);
        let mut sites = sites.into_iter().collect::<Result<Vec<_>, Fatal>>()?;
        let saved: BTreeSet<usize> = sites.iter().map(|site| site.number).collect();
        if self.shared.failed() || !self.with_rows.is_subset(&saved) {
            return Ok(()); // Not every site is in it: a worker ended early, and the caller reports why.
        }
        sites.sort_by_key(|site| site.number);
        let index = Index::new(source.gathered.clone(), source.solved_for.clone(), sites);
        source.state.commit_snapshot(&folder, &index)?;
        self.unsaved_since = None;
        self.saving = begun.elapsed();
        self.consume(source);
        Ok(())
    }
}

/// Reads a shard of the journal again, if it is still what it was.
fn again(
    source: &Source<'_>,
    record: &Record,
) -> Result<(Identity, usize, Shard, Option<Sites>), Refusal> {
    let path = source.intake.folder().join(&record.name);
    let header = ShardHeader::open(&path)?;
    if content(&header)? != record.content {
        return Err(Refusal {
            shard: header.name.clone(),
            reason: Reason::Changed,
        });
    }
    let (admitted, grown) = source.admit(&header)?;
    let shard = read(&admitted)?;
    Ok((header.identity(), admitted.ignored_keys, shard, grown))
}
