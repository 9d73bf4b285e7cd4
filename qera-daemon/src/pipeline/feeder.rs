//! Feeder: accepts shards, gives each worker the rows of its sites, and says when to solve everything and when to save.
//!
//! A shard is accepted when it was read whole and every row of it was checked; then it gets its number in the journal, and
//! then it is folded. What a snapshot lacks of the journal is folded first, in the journal's order.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::Fatal;
use crate::observe::event::Event;
use crate::observe::systemd;
use crate::pipeline::Shared;
use crate::pipeline::publisher::{Drain, Drained, Outcome};
use crate::pipeline::source::Source;
use crate::pipeline::worker::Task;
use crate::source::admission::Admitted;
use crate::source::intake::{Scan, content};
use crate::source::refusal::{Reason, Refusal};
use crate::source::rows::{Batch, Shard, read};
use crate::source::shard::ShardHeader;
use crate::state::journal::{Gathered, Record};

/// A file that was being rewritten is looked at again after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Reasons that are kept of the shards refused; the rest is only counted.
const REASONS_MAX: usize = 100;

/// What a run did.
#[derive(Debug, Default)]
pub(crate) struct FeedReport {
    /// Shards folded in this run.
    pub(crate) folded: usize,
    /// Shards whose statistics are held, from earlier runs too.
    pub(crate) held: usize,
    /// Shards refused in this run.
    pub(crate) refused: usize,
    /// The reasons of the first of them.
    pub(crate) reasons: Vec<String>,
    /// What became of the last generation.
    pub(crate) drained: Option<Drained>,
}

/// The feeder.
pub(crate) struct Feeder<'a> {
    pub(crate) shared: &'a Shared<'a>,
    owners: Vec<Vec<usize>>,
    pub(crate) tasks: Vec<Sender<Task>>,
    outcomes: Sender<Outcome>,
    fed: FeedReport,
    /// Digest of the shards that were published as drained in this run.
    published: Option<String>,
    /// Whether the statistics hold rows that no solution of this run is of.
    owed: bool,
    pub(crate) unsaved_since: Option<Instant>,
    /// How long the last snapshot took.
    pub(crate) saving: Duration,
    /// Sites that rows were dealt to in this run: a snapshot has them all, or is none.
    pub(crate) with_rows: BTreeSet<usize>,
    /// Whether a signal came before the journal was folded again: there is less than was published before.
    pub(crate) cut_short: bool,
    unread: Vec<ShardHeader>,
    /// Whether the folder could not be listed.
    missing: bool,
    /// Whether a file was being rewritten while it was read.
    changed: bool,
}

impl<'a> Feeder<'a> {
    pub(crate) fn new(
        shared: &'a Shared<'a>,
        owners: Vec<Vec<usize>>,
        tasks: Vec<Sender<Task>>,
        outcomes: Sender<Outcome>,
    ) -> Self {
        Self {
            shared,
            owners,
            tasks,
            outcomes,
            fed: FeedReport::default(),
            published: None,
            owed: false,
            unsaved_since: None,
            saving: Duration::ZERO,
            with_rows: BTreeSet::new(),
            cut_short: false,
            unread: Vec::new(),
            missing: false,
            changed: false,
        }
    }

    /// Feeds until there is no more, or a signal comes; then solves, publishes and saves what is new.
    /// Without a source, what was saved is solved: `gathered`.
    pub(crate) fn run(
        mut self,
        source: Option<Source<'_>>,
        gathered: &Gathered,
    ) -> Result<FeedReport, Fatal> {
        let Some(mut source) = source else {
            self.fed.held = gathered.shards;
            self.fed.drained = Some(self.drain(gathered, BTreeSet::new()));
            return Ok(self.fed);
        };
        self.fed.refused = source.refused.len();
        self.fed.reasons = core::mem::take(&mut source.refused);
        self.published.clone_from(&source.published);
        self.owed = source.gathered.shards > 0;
        self.consume(&mut source);
        self.replay(&mut source)?;
        self.follow(&mut source)?;
        self.finish(&mut source)?;
        self.fed.held = source.gathered.shards;
        Ok(self.fed)
    }

    pub(crate) fn going(&self) -> bool {
        let ended = |flag: &AtomicBool| flag.load(Ordering::SeqCst);
        !ended(self.shared.stop) && !ended(&self.shared.converged) && !self.shared.failed()
    }

    /// Listens to the folder until a signal comes; once for `--once`.
    fn follow(&mut self, source: &mut Source<'_>) -> Result<(), Fatal> {
        let watching = &self.shared.settings.source;
        let mut fresh_at = Instant::now();
        while self.going() {
            let scan = self.scan(source)?;
            let fresh = self.take_all(source, scan)?;
            if self.shared.settings.convergence.is_once() {
                return Ok(());
            }
            if fresh {
                fresh_at = Instant::now();
            }
            let idle = !fresh && fresh_at.elapsed() >= watching.idle;
            if idle && self.going() {
                self.publish_idle(source)?;
            } else if self.save_at().is_some_and(|at| Instant::now() >= at) {
                self.save(source)?;
            }
            let new = self.news(source) || self.unsaved_since.is_some();
            let mut deadline = Instant::now() + watching.rescan;
            let idle_at = new.then(|| fresh_at + watching.idle);
            let changed = core::mem::take(&mut self.changed).then(|| Instant::now() + LOOK_AGAIN);
            let verdict = source.intake.next_verdict();
            for at in [idle_at, self.save_at(), verdict, changed] {
                deadline = deadline.min(at.unwrap_or(deadline));
            }
            if let Some(watcher) = source.watcher.as_mut().filter(|_| self.going()) {
                let reporter = self.shared.reporter;
                watcher.renew(|message| {
                    reporter.say(&Event::Warning {
                        subject: "watched folder",
                        message,
                    });
                });
                self.shared.board.flush();
                watcher.wait(deadline);
            }
        }
        Ok(())
    }

    /// Lists the folder. One that is gone for a while does not end a live run.
    fn scan(&mut self, source: &mut Source<'_>) -> Result<Scan, Fatal> {
        match source.intake.scan() {
            Ok(scan) => {
                self.missing = false;
                let incomplete = scan.incomplete;
                self.shared.board.update(|s| s.incomplete = incomplete);
                if incomplete > 0 && self.shared.settings.convergence.is_once() {
                    self.shared.reporter.say(&Event::Warning {
                        subject: "watched folder",
                        message: format!(
                            "{incomplete} files are locked by their producer and left for the next run"
                        ),
                    });
                }
                Ok(scan)
            }
            Err(fatal) if self.shared.settings.convergence.is_once() => Err(fatal),
            Err(fatal) => {
                if !self.missing {
                    self.shared.reporter.say(&Event::Warning {
                        subject: "watched folder",
                        message: fatal.to_string(),
                    });
                }
                self.missing = true;
                Ok(Scan::default())
            }
        }
    }

    /// Takes what a listing found; says whether a shard was accepted.
    fn take_all(&mut self, source: &mut Source<'_>, scan: Scan) -> Result<bool, Fatal> {
        for refusal in &scan.refused {
            self.refuse(refusal);
        }
        let before = self.fed.folded;
        let mut headers = scan.ready.into_iter();
        while let Some(header) = headers.next() {
            if !self.going() {
                self.unread = core::iter::once(header).chain(headers).collect();
                break;
            }
            self.take(source, &header)?;
            self.shared.reporter.step(&header.name);
            if self.save_at().is_some_and(|at| Instant::now() >= at) {
                self.save(source)?;
            }
        }
        Ok(self.fed.folded > before)
    }

    /// Takes one complete file: a new shard, a duplicate, or one to be set aside.
    fn take(&mut self, source: &mut Source<'_>, header: &ShardHeader) -> Result<(), Fatal> {
        let (name, identity) = (header.name.clone(), header.identity());
        let accepted = {
            let _permit = self.shared.compute();
            content(header).and_then(|content| {
                if source.intake.has(&content) {
                    return Ok(None);
                }
                let (admitted, grown) = source.admit(header)?;
                Ok(Some((content, read(&admitted)?, admitted, grown)))
            })
        };
        match accepted {
            Ok(Some((content, shard, admitted, grown))) => {
                source.grow_to(grown)?;
                self.accept(source, content, shard, &admitted, header)?;
            }
            Ok(None) => {
                source.consumable.push((name.clone(), identity));
                if self.unsaved_since.is_none() {
                    self.consume(source); // What it repeats is saved.
                }
                self.shared.reporter.say(&Event::Duplicate { shard: &name });
                self.shared.board.update(|status| status.duplicates += 1);
            }
            // Still being written: the next listing finds it as it is then.
            Err(refusal)
                if matches!(refusal.reason, Reason::Changed) && source.watcher.is_some() =>
            {
                self.changed = true;
                return Ok(());
            }
            Err(refusal) => self.refuse(&refusal),
        }
        source.intake.done_with(header.file_name(), identity);
        Ok(())
    }

    fn accept(
        &mut self,
        source: &mut Source<'_>,
        content: String,
        shard: Shard,
        admitted: &Admitted,
        header: &ShardHeader,
    ) -> Result<(), Fatal> {
        let record = source.journal.append(Record {
            number: 0,
            name: header.name.clone(),
            content: content.clone(),
            file: header.identity(),
            rows: shard.rows,
            full_precision: admitted.full_precision,
        })?;
        source.gathered.advance(record);
        source.intake.accept(content);
        source
            .consumable
            .push((header.name.clone(), header.identity()));
        self.deal(source, shard, admitted.ignored_keys)
    }

    /// Gives every worker its part of a shard.
    pub(crate) fn deal(
        &mut self,
        source: &Source<'_>,
        mut shard: Shard,
        ignored_keys: usize,
    ) -> Result<(), Fatal> {
        let (name, rows) = (shard.name.clone(), shard.rows);
        if core::mem::take(&mut self.owed) && self.shared.live {
            // What was restored has no solution in this run, and a publication needs one of every layer.
            self.solve(&source.gathered);
        }
        self.count_rows(source, &shard);
        let gathered = Arc::new(source.gathered.clone());
        // A site that came later, where there is no checkpoint, belongs to a worker by its number.
        let workers = self.tasks.len();
        let mut parts: BTreeMap<usize, Vec<Batch>> = BTreeMap::new();
        for rows in shard.sites.drain(..) {
            let owner = self
                .owners
                .iter()
                .position(|own| own.binary_search(&rows.site).is_ok());
            let owner = owner.unwrap_or(rows.site % workers.max(1));
            if !rows.bytes.is_empty() {
                self.with_rows.insert(rows.site);
            }
            parts.entry(owner).or_default().push(rows);
        }
        for (index, task) in self.tasks.iter().enumerate() {
            let part = parts.remove(&index).unwrap_or_default();
            if task.send(Task::Rows(Arc::clone(&gathered), part)).is_err() {
                return Ok(()); // A worker ended early; the caller reports why.
            }
        }
        self.unsaved_since.get_or_insert_with(Instant::now);
        self.fed.folded += 1;
        self.shared.reporter.say(&Event::ShardFolded {
            shard: &name,
            rows,
            ignored_keys,
        });
        Ok(())
    }

    fn refuse(&mut self, refusal: &Refusal) {
        let message = refusal.to_string();
        self.shared.reporter.say(&Event::ShardQuarantined {
            message: message.clone(),
        });
        self.fed.refused += 1;
        if self.fed.reasons.len() < REASONS_MAX {
            self.fed.reasons.push(message);
        }
        let (count, reasons) = (self.fed.refused, &self.fed.reasons);
        self.shared.board.update(|status| {
            status.quarantined = count;
            status.reasons.clone_from(reasons);
        });
    }

    /// Whether a generation would say more than the last one.
    fn news(&self, source: &Source<'_>) -> bool {
        self.shared.solver.is_some()
            && source.gathered.shards > 0
            && self.published.as_ref() != Some(&source.gathered.digest)
    }

    /// A folder without news for a while: what is new is saved, solved and published.
    fn publish_idle(&mut self, source: &mut Source<'_>) -> Result<(), Fatal> {
        self.save_new(source)?;
        if self.news(source) {
            self.drain(&source.gathered, BTreeSet::new());
        }
        self.shared.board.update_now(|s| s.phase = "idle".into());
        Ok(())
    }

    /// The end of a run.
    fn finish(&mut self, source: &mut Source<'_>) -> Result<(), Fatal> {
        if self.shared.failed() {
            return Ok(());
        }
        systemd::notify("STOPPING=1");
        if self.shared.stop.load(Ordering::SeqCst) {
            self.shared.reporter.say(&Event::Stopping);
        }
        self.save_new(source)?;
        if self.cut_short {
            self.shared.reporter.say(&Event::Warning {
                subject: "state",
                message: "stopped before the shards of the journal were folded again: nothing was published, the next start goes on".into(),
            });
        } else if self.news(source) {
            let fed_later = self.unread_sites(source);
            let drained = self.drain(&source.gathered, fed_later);
            self.fed.drained = Some(drained);
        }
        Ok(())
    }

    /// Sites that files which a signal left unread would feed.
    fn unread_sites(&mut self, source: &Source<'_>) -> BTreeSet<usize> {
        let headers = core::mem::take(&mut self.unread);
        let mut sites = BTreeSet::new();
        for header in &headers {
            if let Ok((admitted, _)) = source.admit(header) {
                sites.extend(admitted.entries.iter().map(|entry| entry.site));
            }
        }
        self.unread = headers;
        sites
    }

    /// Has every site solved that has rows newer than its last cold solution; the receiver ends when that is done.
    fn solve(&self, gathered: &Gathered) -> Receiver<()> {
        let (done, finished) = bounded(0);
        if self.shared.solver.is_some() {
            let gathered = Arc::new(gathered.clone());
            for task in &self.tasks {
                // A worker that ended early is reported by the caller.
                let _ = task.send(Task::Solve(Arc::clone(&gathered), done.clone()));
            }
        }
        finished
    }

    /// Solves everything cold from what is folded, and publishes it as the last word on these shards.
    fn drain(&mut self, gathered: &Gathered, fed_later: BTreeSet<usize>) -> Drained {
        self.owed = false;
        // Ends when every job has dropped its sender.
        let _ = self.solve(gathered).recv();
        let (reply, drained) = bounded(1);
        let drain = Drain {
            gathered: gathered.clone(),
            fed_later,
            unread: self.unread.len(),
            reply,
        };
        let sent = self.outcomes.send(Outcome::Drain(drain));
        // The publisher ended early: the caller reports why.
        let drained = sent.ok().and_then(|()| drained.recv().ok());
        self.published = Some(gathered.digest.clone());
        drained.unwrap_or(Drained::Failed)
    }

    fn count_rows(&self, source: &Source<'_>, shard: &Shard) {
        let sites = &source.sites.sites;
        let counted: Vec<(usize, u64)> = shard
            .sites
            .iter()
            .map(|rows| (rows.site, rows.rows() as u64))
            .collect();
        let shards = source.gathered.shards;
        let with_layers = self.shared.solver.is_some();
        self.shared.board.update(|status| {
            status.phase = "folding".into();
            status.shards = shards;
            for &(site, rows) in &counted {
                let names = if with_layers {
                    &sites[site].layers[..]
                } else {
                    &[]
                };
                for &layer in names {
                    status.layers[layer].rows += rows;
                }
                if !with_layers {
                    status.gather(site, &sites[site].name, rows);
                }
            }
        });
    }
}
