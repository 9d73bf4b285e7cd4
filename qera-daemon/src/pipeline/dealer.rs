//! The feeder's side of the channels: each worker is given the rows of its sites, and all of them
//! are asked to solve or to save.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::calibrate::row_room::RowRoom;
use crate::channel::{Receiver, Sender, bounded, unbounded};
use crate::disk::clock;
use crate::error::Fatal;
use crate::pipeline::context::Context;
use crate::pipeline::flight::Ticket;
use crate::pipeline::ledger::DealtRows;
use crate::pipeline::outcome::{Drain, Drained, Outcome, UnreadShards};
use crate::pipeline::stage_end::StageEnd;
use crate::pipeline::task::{RowsTask, SaveTask, ShardPart, Task};
use crate::state::journal::Gathered;
use crate::state::snapshot::SavedSite;
use crate::weights::sites::Sites;

/// A shard that is to be dealt to the workers.
pub(crate) struct DealtShard {
    /// The rows and sums of the shard.
    pub(crate) part: ShardPart,
    /// Holds its room in memory.
    pub(crate) ticket: Ticket,
}

/// The feeder's side of the channels.
pub(crate) struct Dealer<'a> {
    /// What the run lends to every stage.
    context: &'a Context<'a>,
    /// The sites of each worker.
    owners: Vec<Vec<usize>>,
    /// One channel for each worker.
    tasks: Vec<Sender<Task>>,
    /// The channel to the publisher.
    outcomes: Sender<Outcome>,
    /// Sites whose rows were dealt in this run: a snapshot without one of them is not whole.
    with_rows: BTreeSet<usize>,
    /// Sites of which the restored state has rows.
    restored: BTreeSet<usize>,
}

impl<'a> Dealer<'a> {
    /// A dealer that has dealt nothing yet.
    pub(crate) const fn new(
        context: &'a Context<'a>,
        owners: Vec<Vec<usize>>,
        tasks: Vec<Sender<Task>>,
        outcomes: Sender<Outcome>,
        restored: BTreeSet<usize>,
    ) -> Self {
        Self {
            context,
            owners,
            tasks,
            outcomes,
            with_rows: BTreeSet::new(),
            restored,
        }
    }

    /// The number of workers.
    pub(crate) const fn workers(&self) -> usize {
        self.tasks.len()
    }

    /// Gives every worker its part of a shard. The statistics then hold the shards of `gathered`.
    pub(crate) fn deal(
        &mut self,
        sites: &Sites,
        gathered: &Gathered,
        shard: DealtShard,
    ) -> Result<(), StageEnd> {
        let begun = clock::now();
        let DealtShard { part, ticket } = shard;
        self.enter(sites, gathered, &part);
        let gathered = Arc::new(gathered.clone());
        let ticket = Arc::new(ticket);
        let mut parts: BTreeMap<usize, ShardPart> = BTreeMap::new();
        for batch in part.rows {
            if !batch.bytes.is_empty() {
                self.with_rows.insert(batch.site);
            }
            let part = parts.entry(self.owner(batch.site)).or_default();
            part.rows.push(batch);
        }
        for sum in part.sums {
            self.with_rows.insert(sum.site);
            let part = parts.entry(self.owner(sum.site)).or_default();
            part.sums.push(sum);
        }
        let room = self.room(sites);
        for (index, task) in self.tasks.iter().enumerate() {
            let part = parts.remove(&index).unwrap_or_default();
            let rows = RowsTask {
                gathered: Arc::clone(&gathered),
                room,
                part,
                ticket: Arc::clone(&ticket),
            };
            let sent = task.send(Task::Rows(rows));
            sent.map_err(|_| StageEnd::Neighbour)?;
        }
        self.context.ingest.waited_for_workers(clock::since(begun));
        Ok(())
    }

    /// How many rows each input may hold out and keep aside. Without a checkpoint the memory is
    /// shared by the inputs that have had rows, because which other inputs are known may depend on
    /// when a run was killed.
    fn room(&self, sites: &Sites) -> RowRoom {
        let memory = self.context.settings.compute.window_memory;
        if self.context.solver.is_some() {
            return RowRoom::of_sites(memory, sites);
        }
        let fed = self.restored.union(&self.with_rows);
        RowRoom::of(memory, fed.map(|&site| sites.sites[site].in_features))
    }

    /// The worker of a site. A site that came later, where there is no checkpoint, belongs to a
    /// worker by its number.
    fn owner(&self, site: usize) -> usize {
        let mut owners = self.owners.iter();
        let owner = owners.position(|own| own.binary_search(&site).is_ok());
        owner.unwrap_or(site % self.tasks.len().max(1))
    }

    fn enter(&self, sites: &Sites, gathered: &Gathered, shard: &ShardPart) {
        let dealt = |site: usize, rows| DealtRows {
            site,
            name: &sites.sites[site].name,
            layers: &sites.sites[site].layers,
            rows,
        };
        let rows = shard.rows.iter();
        let rows = rows.map(|batch| dealt(batch.site, batch.rows() as u64));
        let sums = shard.sums.iter().map(|sum| dealt(sum.site, sum.rows()));
        let dealt: Vec<DealtRows<'_>> = rows.chain(sums).collect();
        self.context.ledger.shard_dealt(gathered.shards, &dealt);
    }

    /// Asks for a solve of every site that has rows newer than its last cold solution. The receiver
    /// ends when that is done.
    pub(crate) fn solve(&self, gathered: &Gathered) -> Receiver<()> {
        let (done, finished) = bounded(0);
        if self.context.solver.is_some() {
            let gathered = Arc::new(gathered.clone());
            for task in &self.tasks {
                // A worker that ended early is reported by the caller.
                let _ = task.send(Task::Solve(Arc::clone(&gathered), done.clone()));
            }
        }
        finished
    }

    /// Solves everything cold from what is folded, and publishes it as the last generation of these
    /// shards.
    pub(crate) fn drain(&self, gathered: &Gathered, unread: UnreadShards) -> Drained {
        // The receiver ends when every job has dropped its sender.
        let _ = self.solve(gathered).recv();
        let (reply, drained) = bounded(1);
        let drain = Drain {
            gathered: gathered.clone(),
            unread,
            reply,
        };
        let sent = self.outcomes.send(Outcome::Drain(drain));
        // The publisher ended early: the caller reports why.
        let drained = sent.ok().and_then(|()| drained.recv().ok());
        drained.unwrap_or(Drained::Failed)
    }

    /// Has every site written into a snapshot that is being made. `None` where a worker ended
    /// early, so that a site is missing: the caller reports why.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn save(
        &self,
        folder: &Path,
        sites: &Sites,
    ) -> Result<Option<Vec<SavedSite>>, Fatal> {
        let keys = sites.sites.iter().map(|s| s.key.clone()).collect();
        let (saved, written) = unbounded();
        let save = SaveTask {
            folder: folder.to_path_buf(),
            keys: Arc::new(keys),
            saved,
        };
        for task in &self.tasks {
            let _ = task.send(Task::Save(save.clone()));
        }
        drop(save);
        let mut sites = written.into_iter().collect::<Result<Vec<_>, Fatal>>()?;
        let saved: BTreeSet<usize> = sites.iter().map(|site| site.number).collect();
        if self.context.failed() || !self.with_rows.is_subset(&saved) {
            return Ok(None);
        }
        sites.sort_by_key(|site| site.number);
        Ok(Some(sites))
    }
}
