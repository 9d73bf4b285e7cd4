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
use crate::pipeline::Pipeline;
use crate::plan::Plan;
use crate::publish::{Base, Inputs, Manifest, OutFolder, emit_base, publish};
use crate::settings::Settings;
use crate::solve::{LayerSolution, SiteSolver, Status};
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
    let watch = settings.watch.as_deref().ok_or_else(|| {
        Stop::Usage("--watch DIR is needed: the folder of activation shards".into())
    })?;
    let stop = signals()?;
    let job = Job::prepare(settings)?;
    job.plan.check(settings)?;
    let out = OutFolder::open(&settings.out)?;
    let weights = fingerprint(&job.checkpoint, &job.layers.selected);
    let base = Base::new(settings, &job.layers.selected, &weights);
    let base_present = base.present(&out)?;
    announce(settings, reporter, &job);
    let nothing_usable = |refused| {
        Err(Stop::NothingUsable {
            folder: watch.to_path_buf(),
            refused,
        })
    };
    if job.admitted.is_empty() {
        return nothing_usable(job.refused.len());
    }

    reporter.begin(job.admitted.len() + job.layers.selected.len());
    let pipeline = Pipeline {
        shards: &job.admitted,
        sites: &job.sites.sites,
        solver: SiteSolver {
            checkpoint: &job.checkpoint,
            settings,
            layers: &job.layers.selected,
        },
        threads: settings.threads,
        stop: &stop,
        reporter,
    };
    let outcome = pipeline.run();
    reporter.end();
    let outcome = outcome?;
    let mut quarantined = job.refused.clone();
    quarantined.extend(outcome.refused);
    if outcome.folded == 0 {
        if stop.load(Ordering::SeqCst) {
            let message = "stopped before the first shard was folded: nothing was published".into();
            reporter.say(&Event::Warning {
                subject: "signal",
                message,
            });
            return Ok(Exit::Done);
        }
        return nothing_usable(quarantined.len());
    }

    if settings.emit_base && !base_present {
        emit_base(&out, &job.checkpoint, settings, &job.layers.selected, &base)?;
    }
    let has_base = settings.emit_base || base_present;
    let base_model = if has_base {
        out.path.join("base")
    } else {
        absolute(&job.checkpoint.path)
    };
    let inputs = Inputs {
        shards: outcome.folded,
        quarantined,
        full_precision_model: job.full_precision_model,
    };
    let failed_inputs = inputs.quarantined.len();
    let manifest = Manifest::new(
        settings,
        &job.layers.selected,
        &outcome.solutions,
        inputs,
        weights,
        has_base.then(|| base.fingerprint()),
    );
    let publication = publish(
        &out,
        settings,
        &job.layers.selected,
        &outcome.solutions,
        &manifest,
        &base_model.display().to_string(),
    )?;
    let with = |status| {
        outcome
            .solutions
            .iter()
            .filter(|s: &&LayerSolution| s.status == status)
            .count()
    };
    reporter.say(&Event::Published {
        generation: publication.generation,
        path: publication.path.display().to_string(),
        solved: with(Status::Solved),
        starved: with(Status::Starved),
        shards: outcome.folded,
        quarantined: failed_inputs,
        rank: publication.rank,
    });
    Ok(if failed_inputs > 0 {
        Exit::Quarantined
    } else {
        Exit::Done
    })
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

fn absolute(path: &Path) -> std::path::PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}
