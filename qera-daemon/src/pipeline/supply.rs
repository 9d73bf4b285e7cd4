//! Where shards come from and where they are recorded: the watched folder, the journal, the state.

use std::collections::BTreeMap;
use std::path::Path;

use crate::disk::identity::Identity;
use crate::error::Fatal;
use crate::pipeline::context::{Boarded, Context};
use crate::pipeline::flight::Ticket;
use crate::plan::Plan;
use crate::plan::stages::held_bytes;
use crate::source::admission::{Admission, Admitted};
use crate::source::consumed::places_of;
use crate::source::declared::{Declaring, declared_shares, grow};
use crate::source::intake::Intake;
use crate::source::reading::{WholeShard, content, read};
use crate::source::refusal::{Reason, Refusal};
use crate::source::rows::Shard;
use crate::source::shard::ShardHeader;
use crate::source::watch::Watcher;
use crate::state::journal::{Gathered, Journal, Record};
use crate::state::snapshot::{Index, SavedSite};
use crate::state::{SitesRecord, SolvedModel, StateFolder};
use crate::weights::recording::Recording;
use crate::weights::sites::Sites;

/// The watched folder, the journal and the state.
#[derive(Debug)]
pub(crate) struct ShardSupply<'a> {
    /// What the run lends to every stage.
    pub(crate) context: &'a Context<'a>,
    /// The folder, and what was taken from it.
    pub(crate) intake: Intake,
    /// What wakes the feeder; `None` for `--once`.
    pub(crate) watcher: Option<Watcher>,
    /// The journal.
    pub(crate) journal: Journal,
    /// The state.
    pub(crate) state: &'a StateFolder,
    /// The memory plan.
    pub(crate) plan: &'a Plan,
    /// The sites. Where there is no checkpoint, shards add to them.
    pub(crate) sites: Sites,
    /// What is known of the recorded model. Where there is no checkpoint, shards add to it.
    pub(crate) recording: Recording,
    /// The number of sites that `sites.json` names.
    pub(crate) saved_sites: usize,
    /// The model that `sites.json` names.
    pub(crate) model: SolvedModel,
    /// The shards that the statistics hold.
    pub(crate) gathered: Gathered,
    /// The fingerprint of what corrections and evidence belong to.
    pub(crate) solved_for: Option<String>,
    /// Files whose rows a snapshot holds or will hold; `--consume` is about these.
    pub(crate) consumable: Vec<ShardFile>,
    /// Number of the last shard that every snapshot of the state holds.
    pub(crate) held_by_all: u64,
    /// Sites whose statistics lack shards that the others have; for each the number of its last
    /// shard.
    pub(crate) behind: BTreeMap<usize, u64>,
}

/// A file of the watched folder, as it was when it was read.
#[derive(Debug)]
pub(crate) struct ShardFile {
    /// The name of the file.
    pub(crate) name: String,
    /// The file's identity.
    pub(crate) identity: Identity,
}

/// A shard whose header fits what the run knows.
#[derive(Debug)]
pub(crate) struct FittingShard {
    /// The entries that will be read from it.
    pub(crate) admitted: Admitted,
    /// What is known of the model's inputs once the shard is accepted; only where there is no
    /// checkpoint.
    pub(crate) grown: Option<Grown>,
}

/// The known inputs of the model, including those that one shard adds.
#[derive(Debug)]
pub(crate) struct Grown {
    sites: Sites,
    recording: Recording,
}

/// A shard that was read whole and of which every row was checked.
#[derive(Debug)]
pub(crate) struct ReadShard {
    /// BLAKE3 of its content.
    pub(crate) content: String,
    /// The file of the shard.
    pub(crate) file: ShardFile,
    /// The header of the shard, which fits.
    pub(crate) fitting: FittingShard,
    /// The rows of the shard.
    pub(crate) shard: Shard,
    /// Holds its room in memory.
    pub(crate) ticket: Ticket,
}

impl ShardSupply<'_> {
    /// Judges a header by the sites and the plan.
    pub(crate) fn admit(&self, header: &ShardHeader) -> Result<FittingShard, Refusal> {
        let settings = self.context.settings;
        let solver = self.context.solver;
        let weights = solver.map(|solver| solver.weights);
        let refuse = |reason| Refusal {
            shard: header.name.clone(),
            reason,
        };
        let mut shares = self.sites.shares().clone();
        declared_shares(header, weights, &self.recording, &mut shares).map_err(refuse)?;
        let grown = match weights {
            None => Some(self.grown(header).map_err(refuse)?),
            Some(_) => None,
        };
        let sites = grown.as_ref().map_or(&self.sites, |grown| &grown.sites);
        if sites.sites.len() > self.sites.sites.len() {
            self.plan.holds(settings, sites).map_err(refuse)?;
        }
        let admission = Admission {
            weights,
            selection: &settings.weights.selection,
            sites,
            recording: &self.recording,
            fixed: weights.is_some(),
            method: settings.solve.method,
        };
        let admitted = admission.admit(header)?;
        self.plan.admits(settings, &admitted).map_err(refuse)?;
        Ok(FittingShard { admitted, grown })
    }

    /// The known inputs, including those that this header adds.
    fn grown(&self, header: &ShardHeader) -> Result<Grown, Reason> {
        let selection = &self.context.settings.weights.selection;
        let mut grown = Grown {
            sites: self.sites.clone(),
            recording: self.recording.clone(),
        };
        grow(header, selection, &mut grown.sites);
        let declaring = Declaring {
            model: None,
            selection,
        };
        declaring.record(header, &mut grown.recording)?;
        Ok(grown)
    }

    /// Reads a shard whole; `None` where its content has come before.
    pub(crate) fn read(&self, header: &ShardHeader) -> Result<Option<ReadShard>, Refusal> {
        match self.admit(header) {
            Ok(fitting) => self.read_fitting(header, fitting, |content| !self.intake.has(content)),
            // The shard came before that was known which refuses it now.
            Err(_) if self.intake.has(&content(header)?) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// Reads a shard of the journal again, if it is still what it was.
    ///
    /// # Errors
    /// [`Refusal`] with what is wrong with the file in the folder.
    pub(crate) fn read_again(&self, record: &Record) -> Result<ReadShard, Refusal> {
        let mut refusal: Option<Refusal> = None;
        for path in places_of(self.intake.folder(), &record.name) {
            match self.read_same(&path, record) {
                Ok(read) => return Ok(read),
                // A file that the disk does not give may be this shard; otherwise the folder's
                // answer says more.
                Err(other) if refusal.is_none() || other.reason.is_failure() => {
                    refusal = Some(other);
                }
                Err(_) => {}
            }
        }
        Err(refusal.unwrap_or_else(|| Refusal {
            shard: record.name.clone(),
            reason: Reason::Changed,
        }))
    }

    fn read_same(&self, path: &Path, record: &Record) -> Result<ReadShard, Refusal> {
        let header = ShardHeader::open(path)?;
        let is_it = |content: &str| content == record.content;
        let read = match self.admit(&header) {
            Ok(fitting) => self.read_fitting(&header, fitting, is_it)?,
            Err(refusal) if is_it(&content(&header)?) => return Err(refusal),
            Err(_) => None,
        };
        read.ok_or_else(|| Refusal {
            shard: header.name.clone(),
            reason: Reason::Changed,
        })
    }

    /// Reads a shard whose header fits. `None` where its content is not `wanted`, whatever else is
    /// wrong with it.
    fn read_fitting(
        &self,
        header: &ShardHeader,
        fitting: FittingShard,
        wanted: impl FnOnce(&str) -> bool,
    ) -> Result<Option<ReadShard>, Refusal> {
        let Boarded { ticket, core } = self.context.board(held_bytes(&fitting.admitted));
        let WholeShard {
            content,
            rows,
            cost,
        } = read(&fitting.admitted)?;
        drop(core);
        self.context.ingest.read(&cost);
        if !wanted(&content) {
            return Ok(None);
        }
        Ok(Some(ReadShard {
            content,
            file: ShardFile {
                name: header.name.clone(),
                identity: header.identity(),
            },
            fitting,
            shard: rows?,
            ticket,
        }))
    }

    /// Writes a shard that was read into the journal.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn journal(&mut self, shard: &ReadShard) -> Result<Record, Fatal> {
        let record = self.journal.append(Record {
            number: 0,
            name: shard.file.name.clone(),
            content: shard.content.clone(),
            file: shard.file.identity,
            rows: shard.shard.rows,
            full_precision: shard.fitting.admitted.full_precision,
        })?;
        Ok(record.clone())
    }

    /// Takes a shard that the journal has, and the sites that it adds.
    pub(crate) fn accept(&mut self, record: &Record, file: ShardFile) {
        self.gathered.advance(record);
        self.intake.accept(&record.content);
        self.consumable.push(file);
    }

    /// Takes the sites that an accepted shard adds, and makes them durable before any of their rows
    /// is.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn grow_to(&mut self, grown: Option<Grown>) -> Result<(), Fatal> {
        let Some(Grown { sites, recording }) = grown else {
            return Ok(());
        };
        if sites.sites.len() > self.saved_sites || recording != self.recording {
            let record = SitesRecord::new(&sites, &recording)
                .with_model(self.model.clone())
                .within(self.context.settings.compute.window_memory);
            self.state.save_sites(&record)?;
        }
        self.saved_sites = sites.sites.len();
        self.sites = sites;
        self.recording = recording;
        Ok(())
    }

    /// Makes a snapshot of what the workers wrote aside.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn commit(&mut self, folder: &Path, sites: Vec<SavedSite>) -> Result<(), Fatal> {
        let index = Index::new(
            self.gathered.clone(),
            self.solved_for.clone(),
            self.recording.names.is_some(),
            sites,
        );
        self.state.commit_snapshot(folder, &index)?;
        // The snapshot that was the newest is now the older one of the two that stay.
        let held = core::mem::replace(&mut self.held_by_all, self.gathered.position);
        if let Err(left) = self.state.remove_old_snapshots() {
            // A third one stays, which holds fewer shards than these two: the journal keeps all its
            // lines until it is gone.
            let message = format!("{left}; the next snapshot tries it again");
            self.context.warn_of("state", message);
            return Ok(());
        }
        self.journal.shorten(held)
    }
}
