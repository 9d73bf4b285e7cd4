//! The main job in order: open what was named, admit shards by their headers, plan, then the pipeline, then
//! publish.

use core::sync::atomic::{AtomicBool, Ordering};
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
use crate::source::{Admission, Admitted, Refusal, ShardHeader, declared_shares, list};

/// Everything that is known before a row is read.
#[derive(Debug)]
pub struct Job {
    checkpoint: Checkpoint,
    layers: Layers,
    sites: Sites,
    admitted: Vec<Admitted>,
    refused: Vec<String>,
    full_precision_model: Option<bool>,
    ignored_files: usize,
    /// What it will need.
    pub plan: Plan,
}

impl Job {
    /// Opens checkpoint and folder and reads the shards' headers.
    ///
    /// # Errors
    /// [`Stop`] for a checkpoint or folder that cannot serve; a bad shard is only counted.
    pub fn prepare(settings: &Settings) -> Result<Self, Stop> {
        let checkpoint = Checkpoint::open(&settings.checkpoint)?;
        let layers = Layers::select(&checkpoint, settings)?;
        let mut refusals: Vec<Refusal> = Vec::new();
        let mut headers: Vec<ShardHeader> = Vec::new();
        let mut shares = Shares::new();
        let mut ignored_files = 0;
        if let Some(folder) = &settings.watch {
            let listing = list(folder)?;
            ignored_files = listing.ignored;
            for path in &listing.shards {
                let header = ShardHeader::open(path)
                    .and_then(|h| declared_shares(&h, &layers.selected, &mut shares).map(|()| h));
                match header {
                    Ok(header) => headers.push(header),
                    Err(refusal) => refusals.push(refusal),
                }
            }
        }
        let sites = Sites::group(&layers.selected, &shares).map_err(|reason| Stop::Checkpoint {
            path: checkpoint.path.clone(),
            reason,
        })?;
        let admission = Admission {
            model_names: checkpoint.model_names(),
            checkpoint: &checkpoint,
            selection: &settings.selection,
            sites: &sites,
        };
        let mut admitted = Vec::new();
        let mut full_precision_model = Some(true);
        for header in &headers {
            match admission.admit(header) {
                Ok(shard) => {
                    full_precision_model = source_of(full_precision_model, header);
                    admitted.push(shard);
                }
                Err(refusal) => refusals.push(refusal),
            }
        }
        refusals.sort_by(|a, b| a.shard.cmp(&b.shard));
        let plan = Plan::new(settings, &layers.selected, &sites.sites, &admitted);
        Ok(Self {
            full_precision_model: full_precision_model.filter(|_| !admitted.is_empty()),
            refused: refusals.iter().map(ToString::to_string).collect(),
            checkpoint,
            layers,
            sites,
            admitted,
            ignored_files,
            plan,
        })
    }
}

/// Folds what a shard's `qera.source` says into what the others said.
fn source_of(so_far: Option<bool>, header: &ShardHeader) -> Option<bool> {
    match header.metadata("qera.source") {
        Some("full-precision") => so_far,
        Some("quantized") => Some(false),
        _ => so_far.filter(|full_precision| !full_precision),
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
    if job.admitted.is_empty() {
        return nothing_usable(job.refused.len());
    }

    reporter.begin(job.admitted.len() + job.layers.selected.len());
    let outcome = job.pipeline(settings, &stop, reporter).run();
    reporter.end();
    let outcome = outcome?;
    if outcome.folded > 0 {
        return target.publish(settings, job, outcome, reporter);
    }
    if stop.load(Ordering::SeqCst) {
        let message = "stopped before the first shard was folded: nothing was published".into();
        reporter.say(&Event::Warning {
            subject: "signal",
            message,
        });
        return Ok(Exit::Done);
    }
    nothing_usable(job.refused.len() + outcome.refused.len())
}

impl Job {
    fn pipeline<'a>(
        &'a self,
        settings: &'a Settings,
        stop: &'a AtomicBool,
        reporter: &'a Reporter,
    ) -> Pipeline<'a> {
        Pipeline {
            shards: &self.admitted,
            sites: &self.sites.sites,
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
        let path = &job.checkpoint.path;
        let base_model = if has_base {
            self.out.path.join("base")
        } else {
            std::fs::canonicalize(path).unwrap_or_else(|_| path.clone())
        };
        let mut quarantined = job.refused;
        quarantined.extend(outcome.refused);
        let refused = quarantined.len();
        let inputs = Inputs {
            shards: outcome.folded,
            quarantined,
            full_precision_model: job.full_precision_model,
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
            shards: outcome.folded,
            quarantined: refused,
            rank: published.rank,
        });
        Ok(if refused > 0 {
            Exit::Quarantined
        } else {
            Exit::Done
        })
    }
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
        shards: job.admitted.len(),
        method: settings.method.name(),
        threads: settings.threads,
        planned_bytes: job.plan.total_bytes,
        budget_bytes: settings.memory_budget.bytes,
        device: device(),
    });
    if job.ignored_files > 0 {
        reporter.say(&Event::Warning {
            subject: "watched folder",
            message: format!(
                "{} files are no .safetensors and were ignored",
                job.ignored_files
            ),
        });
    }
    for message in &job.refused {
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
