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
    shares: Shares,
}

impl Job {
    /// Opens checkpoint and folder and reads the shards' headers.
    ///
    /// # Errors
    /// [`Stop`] for a checkpoint or folder that cannot serve; a bad shard is only counted.
    pub fn prepare(settings: &Settings) -> Result<Self, Stop> {
        let checkpoint = Checkpoint::open(&settings.checkpoint)?;
        let layers = Layers::select(&checkpoint, settings)?;
        let group = |shares: &Shares| {
            Sites::group(&layers.selected, shares).map_err(|reason| Stop::Checkpoint {
                path: checkpoint.path.clone(),
                reason,
            })
        };
        group(&Shares::new())?;
        let shards = Shards::judge(settings, &checkpoint, &layers)?;
        let sites = group(&shards.shares)?;
        let plan = Plan::new(settings, &layers.selected, &sites, &shards.admitted);
        Ok(Self {
            checkpoint,
            layers,
            sites,
            shards,
            plan,
        })
    }
}

impl Shards {
    /// Reads every header. What a refused shard declares of shared inputs does not count.
    fn judge(settings: &Settings, checkpoint: &Checkpoint, layers: &Layers) -> Result<Self, Stop> {
        let mut shards = Self::default();
        let Some(folder) = &settings.watch else {
            return Ok(shards);
        };
        let admission = Admission {
            model_names: checkpoint.model_names(),
            checkpoint,
            selection: &settings.selection,
            layers: &layers.selected,
        };
        let listing = list(folder)?;
        shards.ignored_files = listing.ignored;
        for path in &listing.shards {
            let judged = ShardHeader::open(path).and_then(|header| {
                let admitted = admission.admit(&header)?;
                declared_shares(&header, &layers.selected, &mut shards.shares)?;
                Ok(admitted)
            });
            match judged {
                Ok(admitted) => shards.admitted.push(admitted),
                Err(refusal) => shards.refused.push(refusal.to_string()),
            }
        }
        Ok(shards)
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
    if outcome
        .solutions
        .iter()
        .any(|s| s.status != Status::Starved)
    {
        return target.publish(settings, job, outcome, reporter);
    }
    if outcome.reading.unread > 0 {
        return Err(Stop::Interrupted);
    }
    nothing_usable(job.shards.refused.len() + outcome.reading.refused.len())
}

impl Job {
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
    base: Base,
    base_present: bool,
}

impl Target {
    /// Locks the folder and refuses one whose base belongs to other settings.
    fn open(settings: &Settings, job: &Job) -> Result<Self, Stop> {
        let out = OutFolder::open(&settings.out)?;
        let weights = fingerprint(&job.checkpoint, &job.layers.selected);
        let base = Base::new(settings, &job.layers.selected, &weights);
        let base_present = base.present(&out)?;
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
        if settings.emit_base && !self.base_present {
            emit_base(&self.out, &job.checkpoint, settings, layers, &self.base)?;
        }
        let has_base = settings.emit_base || self.base_present;
        let base_model = if has_base {
            self.out.path.join("base")
        } else {
            absolute(job.checkpoint.folder())
        };
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
        let base = has_base.then(|| self.base.fingerprint());
        let manifest = Manifest::new(settings, layers, solutions, inputs, self.weights, base);
        let published = publish(
            &self.out,
            settings,
            layers,
            solutions,
            &manifest,
            &base_model.display().to_string(),
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

fn absolute(path: &Path) -> std::path::PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
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
