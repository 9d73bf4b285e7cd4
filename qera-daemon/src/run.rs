//! The main job in order: open what was named, admit shards by their headers, plan, then the pipeline, then
//! publish.

use core::sync::atomic::AtomicBool;
use std::path::Path;
use std::sync::Arc;

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::checkpoint::{Checkpoint, Layers, Shares, Sites, fingerprint};
use crate::error::Stop;
use crate::exit::{Exit, SECOND_SIGINT, SECOND_SIGTERM};
use crate::observe::{Event, Reporter};
use crate::pipeline::{Outcome, Pipeline};
use crate::plan::Plan;
use crate::publish::{Base, Inputs, Manifest, OutFolder, emit_base, publish};
use crate::settings::Settings;
use crate::solve::{SiteSolver, Status};
use crate::source::{Admission, Admitted, ShardHeader, declared_shares, list};

/// Everything that is known before a row is read.
#[derive(Debug)]
pub struct Job {
    checkpoint: Checkpoint,
    layers: Layers,
    sites: Sites,
    shards: Shards,
    /// What it will need.
    pub plan: Plan,
}

/// The folder's shards, judged by their headers.
#[derive(Debug, Default)]
struct Shards {
    admitted: Vec<Admitted>,
    refused: Vec<String>,
    ignored_files: usize,
}

impl Job {
    /// Opens checkpoint and folder and reads the shards' headers.
    ///
    /// # Errors
    /// [`Stop`] for a checkpoint or folder that cannot serve; a bad shard is only counted.
    pub fn prepare(settings: &Settings) -> Result<Self, Stop> {
        let checkpoint = Checkpoint::open(&settings.checkpoint)?;
        let layers = Layers::select(&checkpoint, settings)?;
        let (sites, shards) = Shards::judge(settings, &checkpoint, &layers)?;
        let plan = Plan::new(settings, &layers.selected, &sites, &shards.admitted);
        Ok(Self {
            checkpoint,
            layers,
            sites,
            shards,
            plan,
        })
    }

    /// Shards that a run would set aside, each with its reason.
    #[must_use]
    pub fn refused(&self) -> &[String] {
        &self.shards.refused
    }
}

impl Shards {
    /// Judges every header. The sites depend on what the shards declare of shared inputs, and what a refused
    /// shard declares does not count: whenever shards are refused, the rest is judged again without them.
    fn judge(
        settings: &Settings,
        checkpoint: &Checkpoint,
        layers: &Layers,
    ) -> Result<(Sites, Self), Stop> {
        let mut shards = Self::default();
        let mut headers = Vec::new();
        if let Some(folder) = &settings.watch {
            let listing = list(folder)?;
            shards.ignored_files = listing.ignored;
            for path in &listing.shards {
                match ShardHeader::open(path) {
                    Ok(header) => headers.push(header),
                    Err(refusal) => shards.refused.push(refusal.to_string()),
                }
            }
        }
        loop {
            let mut shares = Shares::default();
            let mut clashes = Vec::new();
            for (index, header) in headers.iter().enumerate() {
                if let Err(refusal) = declared_shares(header, &layers.selected, &mut shares) {
                    clashes.push((index, refusal));
                }
            }
            let sites =
                Sites::group(&layers.selected, &shares).map_err(|reason| Stop::Checkpoint {
                    path: checkpoint.path.clone(),
                    reason,
                })?;
            let admission = Admission {
                model_names: checkpoint.model_names(),
                checkpoint,
                selection: &settings.selection,
                sites: &sites,
            };
            let mut admitted = Vec::new();
            let mut refusals = Vec::new();
            for (index, header) in headers.iter().enumerate() {
                match admission.admit(header) {
                    Ok(shard) => admitted.push(shard),
                    Err(refusal) => refusals.push((index, refusal)),
                }
            }
            // A clash is one's own fault only when the other side is admitted.
            let refusals = if refusals.is_empty() {
                clashes
            } else {
                refusals
            };
            if refusals.is_empty() {
                shards.admitted = admitted;
                shards.refused.sort();
                return Ok((sites, shards));
            }
            for (index, refusal) in refusals.into_iter().rev() {
                shards.refused.push(refusal.to_string());
                headers.remove(index);
            }
        }
    }
}

/// `qera-daemon --once`: everything in the folder, from the first row, solved and published.
///
/// # Errors
/// [`Stop`]; nothing was published then, and what was published before is still there.
pub fn once(settings: &Settings, reporter: &mut Reporter) -> Result<Exit, Stop> {
    if !settings.once {
        return Err(Stop::Usage(
            "this version works in batches: pass --once, or a subcommand".into(),
        ));
    }
    let Some(watch) = &settings.watch else {
        return Err(Stop::Usage(
            "--watch DIR is needed: the folder of activation shards".into(),
        ));
    };
    let stop = signals()?;
    let job = Job::prepare(settings)?;
    job.plan.check(settings)?;
    let target = Target::open(settings, &job)?;
    announce(settings, reporter, &job);
    let nothing_usable = |refused| {
        Err(Stop::NothingUsable {
            folder: watch.clone(),
            refused,
        })
    };
    if job.shards.admitted.is_empty() {
        return nothing_usable(job.shards.refused.len());
    }

    reporter.begin(job.shards.admitted.len() + job.layers.selected.len());
    let outcome = job.pipeline(settings, &stop, reporter).run();
    reporter.end();
    let outcome = outcome?;
    if job.cut_off(&outcome) {
        return Err(Stop::Interrupted);
    }
    if outcome
        .solutions
        .iter()
        .any(|s| s.status != Status::Starved)
    {
        return target.publish(settings, job, outcome, reporter);
    }
    nothing_usable(job.shards.refused.len() + outcome.reading.refused.len())
}

impl Job {
    /// Whether a signal kept a layer from rows that the unread shards have: it would be published as zeros.
    fn cut_off(&self, outcome: &Outcome) -> bool {
        let admitted = &self.shards.admitted;
        let unread = &admitted[admitted.len() - outcome.reading.unread..];
        outcome
            .solutions
            .iter()
            .filter(|s| s.status == Status::Starved)
            .any(|starved| {
                let site = self.sites.of(&self.layers.selected[starved.layer].name);
                unread
                    .iter()
                    .any(|shard| site.is_some_and(|site| shard.entry_of(site).is_some()))
            })
    }

    fn pipeline<'a>(
        &'a self,
        settings: &'a Settings,
        stop: &'a AtomicBool,
        reporter: &'a Reporter,
    ) -> Pipeline<'a> {
        Pipeline {
            shards: &self.shards.admitted,
            sites: &self.sites,
            solver: SiteSolver {
                checkpoint: &self.checkpoint,
                settings,
                layers: &self.layers.selected,
            },
            threads: settings.threads,
            stop,
            reporter,
        }
    }
}

/// The output folder, held, and the fingerprints of what goes there.
struct Target {
    out: OutFolder,
    weights: String,
    /// Set where a base is there or asked for.
    base: Option<Base>,
    base_present: bool,
}

impl Target {
    /// Locks the folder and refuses one whose base belongs to other settings.
    fn open(settings: &Settings, job: &Job) -> Result<Self, Stop> {
        let out = OutFolder::open(&settings.out)?;
        let weights = fingerprint(&job.checkpoint, &job.layers.selected);
        // Hashing the whole checkpoint is for those who have or want a base.
        let concerned = settings.emit_base || out.path.join("base").exists();
        let base =
            concerned.then(|| Base::new(settings, &job.checkpoint, &job.layers.selected, &weights));
        let base_present = base.as_ref().map_or(Ok(false), |base| base.present(&out))?;
        Ok(Self {
            out,
            weights,
            base,
            base_present,
        })
    }

    /// Writes the base where it is asked for and not there, then the generation.
    fn publish(
        self,
        settings: &Settings,
        job: Job,
        outcome: Outcome,
        reporter: &Reporter,
    ) -> Result<Exit, Stop> {
        let layers = &job.layers.selected;
        if let Some(base) = &self.base
            && !self.base_present
        {
            emit_base(&self.out, &job.checkpoint, settings, layers, base)?;
        }
        // Without a base the quantized weights are elsewhere, and the full-precision folder would be wrong.
        let base_model = self
            .base
            .as_ref()
            .map(|_| self.out.path.join("base").display().to_string());
        let Shards {
            admitted,
            mut refused,
            ..
        } = job.shards;
        let reading = outcome.reading;
        refused.extend(reading.refused);
        let (folded, quarantined) = (reading.folded.len(), refused.len());
        let inputs = Inputs {
            shards: folded,
            empty: reading.empty,
            unread: reading.unread,
            quarantined: refused,
            full_precision_model: source(
                reading.folded.iter().map(|&i| admitted[i].full_precision),
            ),
        };
        let solutions = &outcome.solutions;
        let base = self.base.as_ref().map(Base::fingerprint);
        let manifest = Manifest::new(settings, layers, solutions, inputs, self.weights, base);
        let published = publish(
            &self.out,
            settings,
            layers,
            solutions,
            &manifest,
            base_model.as_deref(),
        )?;
        let count = |status| solutions.iter().filter(|s| s.status == status).count();
        reporter.say(&Event::Published {
            generation: published.generation,
            path: published.path.display().to_string(),
            solved: count(Status::Solved),
            starved: count(Status::Starved),
            shards: folded,
            quarantined,
            unread: reading.unread,
            rank: published.rank,
        });
        Ok(if quarantined > 0 {
            Exit::Quarantined
        } else {
            Exit::Done
        })
    }
}

/// Whether all rows came from the full-precision model: one that did not decides, one that does not say
/// leaves it open.
fn source(mut shards: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    shards
        .try_fold(Some(true), |so_far, shard| match (so_far, shard) {
            (_, Some(false)) => Err(Some(false)),
            (Some(_), Some(true)) => Ok(Some(true)),
            _ => Ok(None),
        })
        .unwrap_or_else(|decided| decided)
}

/// The first SIGINT or SIGTERM sets the flag; the second ends the process at once. What is published by
/// then is complete, because publication is a rename.
fn signals() -> Result<Arc<AtomicBool>, Stop> {
    let stop = Arc::new(AtomicBool::new(false));
    for (signal, status) in [(SIGINT, SECOND_SIGINT), (SIGTERM, SECOND_SIGTERM)] {
        signal_hook::flag::register_conditional_shutdown(signal, status, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(Stop::io(Path::new("signals"), "register"))?;
    }
    Ok(stop)
}

fn announce(settings: &Settings, reporter: &Reporter, job: &Job) {
    reporter.say(&Event::Started {
        checkpoint: job.checkpoint.path.display().to_string(),
        layers: job.layers.selected.len(),
        sites: job.sites.sites.len(),
        shards: job.shards.admitted.len(),
        method: settings.method.name(),
        threads: settings.threads,
        planned_bytes: job.plan.total_bytes,
        budget_bytes: settings.memory_budget.bytes,
        device: device(),
    });
    if let Some(first) = job.layers.passed_over.first() {
        let count = job.layers.passed_over.len();
        let message = format!(
            "{count} weights of more than two dimensions are not corrected ('{first}' first)"
        );
        reporter.say(&Event::Warning {
            subject: "checkpoint",
            message,
        });
    }
    if job.shards.ignored_files > 0 {
        reporter.say(&Event::Warning {
            subject: "watched folder",
            message: format!(
                "{} files are no .safetensors and were ignored",
                job.shards.ignored_files
            ),
        });
    }
    for message in &job.shards.refused {
        reporter.say(&Event::ShardQuarantined {
            message: message.clone(),
        });
    }
}

/// This version computes on the CPU; the probe says what stands in the way of a GPU.
fn device() -> String {
    match qera_gpu::probe() {
        qera_gpu::Probe::Unavailable(reason) => format!("computing on the CPU ({reason})"),
        found => format!("computing on the CPU ({found:?} is not used by this version)"),
    }
}
