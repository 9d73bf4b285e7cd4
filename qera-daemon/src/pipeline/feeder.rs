//! Feeder: follows the watched folder, and decides when to solve everything, when to publish and
//! when to save.
//!
//! First it folds, in the journal's order, what the journal has and the snapshot has not.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::disk::clock;
use crate::disk::tried::is_no_answer;
use crate::error::Fatal;
use crate::observe::event::Event;
use crate::observe::systemd;
use crate::observe::waiting::WaitingForConvergence;
use crate::pipeline::context::Context;
use crate::pipeline::dealer::Dealer;
use crate::pipeline::lull::Lull;
use crate::pipeline::outcome::{Drained, UnreadShards};
use crate::pipeline::pause::PauseFile;
use crate::pipeline::supply::ShardSupply;
use crate::source::intake::Scan;
use crate::source::shard::ShardHeader;

/// A file that was being rewritten is looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The feeder's own state.
pub(crate) struct Feeder<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) supply: ShardSupply<'a>,
    pub(crate) dealer: Dealer<'a>,
    /// Digest of the shards of the last generation that was published with the folder drained.
    published: Option<String>,
    /// Whether that generation failed its check, or was not written because layers wait for rows.
    /// It is tried again at the end, when the reason may be gone; otherwise the reason is said
    /// again.
    unwritten: bool,
    lull: Lull,
    /// Whether the statistics hold rows of earlier runs of which this run has no solution yet.
    pub(crate) restored_unsolved: bool,
    pub(crate) unsaved_since: Option<Instant>,
    /// How long the last snapshot took.
    pub(crate) saving: Duration,
    /// Whether a signal came before all of the journal was folded again, so that the statistics
    /// have less than what was published before.
    pub(crate) cut_short: bool,
    pub(crate) unread: Vec<ShardHeader>,
    /// Whether the folder could not be listed.
    missing: bool,
    /// Whether that was because the disk did not answer.
    unlisted: bool,
    /// What was last said to be waited for.
    waiting_said: Option<WaitingForConvergence>,
    /// Whether a file was being rewritten while it was read.
    pub(crate) changed: bool,
    /// The file that asks producers to pause. `--once` never asks, because it takes what is there.
    pub(crate) pause: PauseFile,
    /// What was last said about that file.
    pub(crate) pause_said: Option<String>,
    /// Shards that the disk did not give, by name, with what was said about each.
    pub(crate) left_for_later: BTreeMap<String, String>,
}

impl<'a> Feeder<'a> {
    /// A feeder that has fed nothing yet. `published` is the digest of the shards of the current
    /// generation, if that one was published with the folder drained.
    pub(crate) fn new(
        supply: ShardSupply<'a>,
        dealer: Dealer<'a>,
        published: Option<String>,
    ) -> Self {
        let watching = &supply.context.settings.source;
        let above = match &supply.watcher {
            Some(_) => watching.pause_above,
            None => u64::MAX,
        };
        Self {
            context: supply.context,
            pause: PauseFile::of(supply.intake.folder(), above),
            pause_said: None,
            restored_unsolved: supply.gathered.shards > 0,
            supply,
            dealer,
            published,
            unwritten: false,
            lull: Lull::new(watching.idle),
            unsaved_since: None,
            saving: Duration::ZERO,
            cut_short: false,
            unread: Vec::new(),
            missing: false,
            unlisted: false,
            waiting_said: None,
            changed: false,
            left_for_later: BTreeMap::new(),
        }
    }

    /// Feeds until there is nothing more, or a signal comes; then solves, publishes and saves what
    /// is new. Returns what became of the last generation.
    pub(crate) fn run(mut self) -> Result<Option<Drained>, Fatal> {
        self.consume();
        self.replay()?;
        self.follow()?;
        self.finish()
    }

    /// Follows the folder until a signal comes; with `--once`, lists it once.
    fn follow(&mut self) -> Result<(), Fatal> {
        let mut fresh_at = clock::now();
        while self.context.going() {
            let scan = self.scan()?;
            let fresh = self.take_all(scan)?;
            if self.context.settings.convergence.is_once() {
                return Ok(());
            }
            if fresh {
                fresh_at = clock::now();
            }
            let idle = !fresh && clock::now() >= self.lull.ends(fresh_at);
            if idle && self.context.going() {
                self.publish_idle()?;
            } else {
                self.save_when_due()?;
            }
            self.wait(fresh_at);
        }
        Ok(())
    }

    /// Waits until something happens in the folder, or it is time to look again.
    fn wait(&mut self, fresh_at: Instant) {
        let watching = &self.context.settings.source;
        let new = self.news() || self.unsaved_since.is_some();
        let mut deadline = clock::now() + watching.rescan;
        let idle_at = new.then(|| self.lull.ends(fresh_at));
        let changed = core::mem::take(&mut self.changed).then(|| clock::now() + LOOK_AGAIN);
        let verdict = self.supply.intake.next_verdict();
        self.context.reporter.say_repeated(false);
        let repeated = self.context.reporter.repeated_at();
        for at in [idle_at, self.save_at(), verdict, changed, repeated] {
            deadline = deadline.min(at.unwrap_or(deadline));
        }
        let context = self.context;
        if let Some(watcher) = self.supply.watcher.as_mut().filter(|_| context.going()) {
            watcher.renew(|message| context.warn_of("watched folder", message));
            context.ledger.flush();
            watcher.wait(deadline);
        }
    }

    /// Lists the folder. A folder that is gone for a while does not end a live run.
    fn scan(&mut self) -> Result<Scan, Fatal> {
        let once = self.context.settings.convergence.is_once();
        match self.supply.intake.scan() {
            Ok(scan) => {
                self.missing = false;
                self.unlisted = false;
                let incomplete = scan.incomplete;
                self.context.ledger.files_incomplete(incomplete);
                if incomplete > 0 && once {
                    let message = format!(
                        "{incomplete} files are locked by their producer and left for the next run"
                    );
                    self.context.warn_of("watched folder", message);
                }
                Ok(scan)
            }
            Err(fatal) if once => Err(fatal),
            Err(fatal) => {
                if !self.missing {
                    self.context.warn_of("watched folder", fatal.to_string());
                }
                self.missing = true;
                self.unlisted = is_no_answer(&fatal);
                Ok(Scan::default())
            }
        }
    }

    /// Whether a new generation would be made from more than the last one.
    fn news(&self) -> bool {
        let gathered = &self.supply.gathered;
        self.context.solver.is_some()
            && gathered.shards > 0
            && self.published.as_ref() != Some(&gathered.digest)
    }

    /// After a while without news in the folder: saves, solves and publishes what is new.
    fn publish_idle(&mut self) -> Result<(), Fatal> {
        self.save_new()?;
        self.tell_ingest();
        if self.news() {
            self.drain(UnreadShards::default());
        }
        let waiting = self.context.waiting().filter(|_| self.context.going());
        self.tell_waiting(waiting.as_ref());
        self.context.ledger.rest(waiting);
        Ok(())
    }

    /// Tells what it took to take in the shards that were saved: every worker has folded them by
    /// now.
    fn tell_ingest(&self) {
        if let Some(ended) = self.context.ingest.take(self.dealer.workers()) {
            self.context.reporter.say(&Event::Ingest(ended));
        }
    }

    /// Says what is waited for, unless that was the last thing said.
    fn tell_waiting(&mut self, waiting: Option<&WaitingForConvergence>) {
        if let Some(waiting) = waiting.filter(|_| self.waiting_said.as_ref() != waiting) {
            let said = self.waiting_said.insert(waiting.clone());
            self.context.reporter.say(&Event::Waiting(said.clone()));
        }
    }

    /// Ends the run.
    fn finish(&mut self) -> Result<Option<Drained>, Fatal> {
        if self.context.failed() {
            return Ok(None);
        }
        systemd::notify("STOPPING=1");
        if self.context.stopping() {
            self.context.reporter.say(&Event::Stopping);
        }
        let unread: BTreeSet<&String> = self.unread.iter().map(|header| &header.name).collect();
        self.left_for_later.retain(|name, _| !unread.contains(name));
        let unlisted = self
            .unlisted
            .then(|| self.supply.intake.folder().display().to_string());
        let unanswered = self.left_for_later.keys().cloned().chain(unlisted);
        self.context.ledger.unanswered(unanswered.collect());
        // This run takes no more shards, so producers need not pause for it.
        self.ask_to_pause(0);
        self.save_new()?;
        self.tell_ingest();
        if self.cut_short {
            self.context.warn_of("state", "stopped before the shards of the journal were folded again: nothing was published, the next start goes on".into());
            return Ok(None);
        }
        let due = self.news() || self.unwritten;
        Ok(due.then(|| {
            let unread = self.unread();
            self.drain(unread)
        }))
    }

    /// The files that a signal left unread, and the sites that they would feed.
    fn unread(&self) -> UnreadShards {
        let mut sites = BTreeSet::new();
        for header in &self.unread {
            if let Ok(fitting) = self.supply.admit(header) {
                sites.extend(fitting.admitted.sites());
            }
        }
        UnreadShards {
            shards: self.unread.len(),
            sites,
        }
    }

    fn drain(&mut self, unread: UnreadShards) -> Drained {
        self.restored_unsolved = false;
        let gathered = &self.supply.gathered;
        self.published = Some(gathered.digest.clone());
        let dealer = &self.dealer;
        let drained = self.lull.solve(|| dealer.drain(gathered, unread));
        self.unwritten = matches!(drained, Drained::Rejected | Drained::Gathering);
        drained
    }
}
