//! From a listed file to dealt rows. A shard is accepted when it was read whole and every row of it
//! was checked. Then it gets its number in the journal, and then it is folded.

use std::collections::BTreeSet;

use crate::disk::clock;
use crate::error::Fatal;
use crate::observe::event::Event;
use crate::observe::run_events::FoldedShard;
use crate::pipeline::dealer::DealtShard;
use crate::pipeline::feeder::Feeder;
use crate::pipeline::flight::Ticket;
use crate::pipeline::pause::PauseChange;
use crate::pipeline::supply::{ReadShard, ShardFile};
use crate::pipeline::task::ShardPart;
use crate::source::intake::Scan;
use crate::source::refusal::{Reason, Refusal};
use crate::source::rows::Shard;
use crate::source::shard::ShardHeader;

impl Feeder<'_> {
    /// Takes the files that a listing found. Returns whether a shard was accepted.
    pub(crate) fn take_all(&mut self, scan: Scan) -> Result<bool, Fatal> {
        for refusal in &scan.refused {
            self.refuse(refusal);
        }
        let there: BTreeSet<&String> = (scan.unanswered.iter().map(|of| &of.shard))
            .chain(scan.ready.iter().map(|header| &header.name))
            .collect();
        self.left_for_later.retain(|name, _| there.contains(name));
        for refusal in &scan.unanswered {
            self.leave_for_later(refusal);
        }
        let mut waiting = scan.ready.iter().map(|of| of.identity().bytes).sum();
        self.ask_to_pause(waiting);
        let mut fresh = false;
        let mut headers = scan.ready.into_iter();
        while let Some(header) = headers.next() {
            if !self.context.going() {
                self.unread = core::iter::once(header).chain(headers).collect();
                break;
            }
            fresh |= self.take(&header)?;
            waiting -= header.identity().bytes;
            self.ask_to_pause(waiting);
            self.context.reporter.step(&header.name);
            self.save_when_due()?;
        }
        Ok(fresh)
    }

    /// Asks producers to pause when more bytes are waiting than the limit, or tells them that they
    /// may go on. If the folder takes no file of ours, that is said once.
    pub(crate) fn ask_to_pause(&mut self, waiting: u64) {
        let message = match self.pause.adjust(waiting) {
            Ok(PauseChange::None) => return,
            Ok(PauseChange::Asked) => format!(
                "{waiting} bytes of shards wait to be taken: producers are asked to pause (.qera-pause)"
            ),
            Ok(PauseChange::Over) => "producers may go on (.qera-pause is gone)".into(),
            Err(error) => format!("producers cannot be asked to pause or to go on: {error}"),
        };
        if self.pause_said.as_ref() != Some(&message) {
            self.context.warn_of("watched folder", message.clone());
            self.pause_said = Some(message);
        }
    }

    /// Takes one complete file: a new shard, a duplicate, or one to be set aside. Returns whether
    /// it was accepted.
    fn take(&mut self, header: &ShardHeader) -> Result<bool, Fatal> {
        let mut fresh = false;
        match self.supply.read(header) {
            Ok(Some(shard)) => {
                fresh = self.accept(shard)?;
            }
            Ok(None) => self.repeated(header),
            // The file is still being written; the next listing finds it in its later form.
            Err(refusal)
                if matches!(refusal.reason, Reason::Changed) && self.supply.watcher.is_some() =>
            {
                self.changed = true;
                return Ok(false);
            }
            Err(refusal) if refusal.reason.is_gone() => {
                self.left_for_later.remove(&header.name);
                return Ok(false);
            }
            Err(refusal) if refusal.reason.is_failure() => {
                self.leave_for_later(&refusal);
                return Ok(false);
            }
            Err(refusal) => self.refuse(&refusal),
        }
        self.left_for_later.remove(&header.name);
        let intake = &mut self.supply.intake;
        intake.done_with(header.file_name(), header.identity());
        Ok(fresh)
    }

    fn accept(&mut self, mut read: ReadShard) -> Result<bool, Fatal> {
        self.supply.grow_to(read.fitting.grown.take())?;
        let record = self.supply.journal(&read)?;
        self.supply.accept(&record, read.file);
        let ignored_keys = read.fitting.admitted.ignored_keys;
        Ok(self.deal(read.shard, read.ticket, ignored_keys))
    }

    fn repeated(&mut self, header: &ShardHeader) {
        self.supply.consumable.push(ShardFile {
            name: header.name.clone(),
            identity: header.identity(),
        });
        if self.unsaved_since.is_none() {
            self.consume(); // What it repeats is saved.
        }
        self.context.reporter.say(&Event::Duplicate {
            shard: &header.name,
        });
        self.context.ledger.shard_repeated();
    }

    /// Deals the rows of an accepted shard. Returns whether every worker has its part.
    pub(crate) fn deal(&mut self, shard: Shard, ticket: Ticket, ignored_keys: usize) -> bool {
        if core::mem::take(&mut self.restored_unsolved) && self.context.live {
            // Restored sites have no solution in this run yet, and a publication needs one for
            // every layer.
            self.dealer.solve(&self.supply.gathered);
        }
        let (name, rows) = (shard.name.clone(), shard.rows);
        let part = ShardPart::of(shard);
        let (sites, gathered) = (&self.supply.sites, &self.supply.gathered);
        let dealt = self
            .dealer
            .deal(sites, gathered, DealtShard { part, ticket });
        if dealt.is_err() {
            return false; // A worker ended early; the caller reports why.
        }
        self.unsaved_since.get_or_insert_with(clock::now);
        self.context.reporter.say(&Event::ShardFolded(FoldedShard {
            shard: &name,
            rows,
            ignored_keys,
        }));
        true
    }

    /// Puts off a shard that the disk does not give. A live run tries it again with the next
    /// listing, and says why once for each shard. `--once` lists only once, and so refuses it.
    fn leave_for_later(&mut self, refusal: &Refusal) {
        if self.supply.watcher.is_none() {
            return self.refuse(refusal);
        }
        let message = refusal.to_string();
        let known = self
            .left_for_later
            .insert(refusal.shard.clone(), message.clone());
        if known.as_ref() != Some(&message) {
            let message = format!("{message}; it is tried again with the next listing");
            self.context.warn_of("watched folder", message);
        }
    }

    fn refuse(&self, refusal: &Refusal) {
        let message = refusal.to_string();
        self.context.reporter.say(&Event::ShardQuarantined {
            message: message.clone(),
        });
        self.context.ledger.shard_refused(message);
    }
}
