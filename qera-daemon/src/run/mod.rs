//! The main job in order: open what was named, know the sites, plan, continue from the state, then the pipeline.

pub(crate) mod prepared;

use core::sync::atomic::{AtomicBool, Ordering};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::disk::identity::Identity;
use crate::error::Fatal;
use crate::exit::{Exit, SECOND_SIGINT, SECOND_SIGTERM};
use crate::host::cores::Cores;
use crate::observe::event::Event;
use crate::observe::reporter::Reporter;
use crate::observe::status::Status;
use crate::observe::systemd;
use crate::pipeline::Pipeline;
use crate::pipeline::board::Board;
use crate::pipeline::feeder::FeedReport;
use crate::pipeline::publisher::Drained;
use crate::pipeline::source::Source;
use crate::publish::target::Target;
use crate::run::prepared::{Prepared, solver};
use crate::settings::Settings;
use crate::source::intake::Intake;
use crate::source::watch::{Wake, Watcher};
use crate::state::journal::{Journal, Opened};
use crate::state::restore::{DamagedSnapshot, Restored, restore};
use crate::state::{SitesRecord, StateFolder, read_sites};
use crate::weights::Weights;
use crate::weights::layers::Layer;
use crate::weights::sites::Sites;

/// The main job: what the folder holds and what comes is folded, solved and published, until `--once` has done what is
/// there, the layers have converged, or a signal comes.
///
/// # Errors
/// [`Fatal`]; what was published before is still there, and what the state holds is not lost.
pub(crate) fn run(settings: &Settings, reporter: &mut Reporter) -> Result<Exit, Fatal> {
    let Some(watch) = &settings.source.watch else {
        return Err(Fatal::Usage(
            "--watch DIR is needed: the folder of activation shards".into(),
        ));
    };
    let stop = signals()?;
    let weights = Weights::open(settings)?;
    let live = !settings.convergence.is_once();
    // Before the first listing, so that nothing comes unseen between the two.
    let mut watcher = live.then(|| watch_folder(settings, watch, reporter));
    if let Some(watcher) = &watcher {
        wake_by_signals(&watcher.handle())?;
    }
    let mut intake = Intake::new(watch, live);
    let mut job = Prepared::prepare(settings, weights.as_ref(), Some(&mut intake))?;
    job.plan.check(settings)?;
    let state = StateFolder::open(&settings.state)?;
    if read_sites(&state.path)? != job.saved {
        // Another run began or went on with it before the lock was ours.
        intake = Intake::new(watch, live);
        job = Prepared::prepare(settings, weights.as_ref(), Some(&mut intake))?;
        job.plan.check(settings)?;
    }
    let target = weights
        .as_ref()
        .map(|w| Target::open(settings, w))
        .transpose()?;
    announce(settings, reporter, &job, weights.as_ref());
    if job.saved.is_none() {
        let layers = weights.as_ref().map_or(&[][..], Weights::layers);
        let status = job.status(settings, layers, &[]);
        state.save_status(&Status {
            phase: "waiting for the first shard".into(),
            ..status
        })?;
    }
    ready(watch, reporter, live);
    if let Some(watcher) = &mut watcher {
        let mut first = First {
            settings,
            weights: weights.as_ref(),
            reporter,
            intake: &mut intake,
            watcher,
        };
        job = first.wait(job, &stop)?;
    }
    if !live && job.admitted.is_empty() && job.saved.is_none() {
        return nothing_usable(watch, job.refused.len());
    }
    if weights.is_none() && job.saved.is_none() {
        // Modules come with the shards that are accepted, not with those that are only there.
        job.sites = Sites::saved(&[], job.sites.shares());
    }
    if let Some(job) = begun(&job, &stop) {
        let fed = Run {
            settings,
            reporter,
            job,
            weights: weights.as_ref(),
            stop: &stop,
            state: &state,
        }
        .go(intake, watcher, target)?;
        return end(settings, watch, reporter, &fed);
    }
    Ok(Exit::Done)
}

/// Nothing to begin with when a signal came before the first shard.
fn begun<'a>(job: &'a Prepared, stop: &AtomicBool) -> Option<&'a Prepared> {
    let nothing = job.admitted.is_empty() && job.saved.is_none();
    (!(nothing && stop.load(Ordering::SeqCst))).then_some(job)
}

/// A run whose sites are known.
struct Run<'a> {
    settings: &'a Settings,
    reporter: &'a mut Reporter,
    job: &'a Prepared,
    weights: Option<&'a Weights>,
    stop: &'a AtomicBool,
    state: &'a StateFolder,
}

impl Run<'_> {
    fn go(
        self,
        mut intake: Intake,
        watcher: Option<Watcher>,
        target: Option<Target<'_>>,
    ) -> Result<FeedReport, Fatal> {
        let Self { job, settings, .. } = self;
        let layers: &[Layer] = self.weights.map_or(&[][..], Weights::layers);
        let sites = SitesRecord::new(&job.sites, job.keeps_r);
        if job.saved.as_ref() != Some(&sites) {
            self.state.save_sites(&sites)?;
        }
        let Opened { journal, torn } = Journal::open(&self.state.path.join("journal"))?;
        let solved_for = target.as_ref().map(Target::solved_for);
        let expected = job.expected(layers, solved_for.as_deref());
        let mut restored = restore(&self.state.path, Some(&journal), &expected)?;
        restored.open_unless(settings.convergence.closes_sites());
        self.tell(&journal, &restored, torn, solved_for.as_deref());
        let consumable = held(&journal, restored.gathered.position, &mut intake);
        let mut status = job.status(settings, layers, &restored.sites);
        status.shards = restored.gathered.shards;
        let board = Board::new(Some(self.state), status);
        board.update_now(|_| ());
        // Shards that the current generation has seen and the snapshot has not: nothing older takes its place.
        let position = target.as_ref().and_then(Target::position);
        let floor = position
            .filter(|at| journal.gathered(at.number).digest == at.digest)
            .map_or(0, |at| at.number);
        let source = Source {
            settings,
            intake,
            wake: watcher.as_ref().map(Watcher::handle),
            watcher,
            journal,
            state: self.state,
            sites: job.sites.clone(),
            saved_sites: job.sites.sites.len(),
            keeps_r: job.keeps_r,
            weights: self.weights,
            plan: &job.plan,
            published: target.as_ref().and_then(Target::drained),
            gathered: restored.gathered.clone(),
            solved_for,
            refused: job.refused.clone(),
            consumable,
        };
        self.reporter.begin(if settings.convergence.is_once() {
            job.admitted.len() + layers.len()
        } else {
            0
        });
        let cores = Cores::new(settings.compute.threads);
        let pipeline = Pipeline {
            settings,
            sites: &job.sites,
            keeps_r: job.keeps_r,
            scored_shares: job.scored_shares(layers),
            gathered: restored.gathered,
            restored: restored.sites,
            floor,
            solver: self
                .weights
                .map(|weights| solver(settings, weights, &cores)),
            cores: &cores,
            stop: self.stop,
            reporter: self.reporter,
            board: &board,
        };
        let fed = pipeline.run(Some(source), target);
        board.update_now(|status| status.phase = "stopped".into());
        self.reporter.end();
        fed
    }

    /// Says what the state gave.
    fn tell(&self, journal: &Journal, restored: &Restored, torn: usize, solved_for: Option<&str>) {
        let warn = |message: String| {
            self.reporter.say(&Event::Warning {
                subject: "state",
                message,
            });
        };
        if torn > 0 {
            warn(format!(
                "the journal's last line was cut off ({torn} bytes): that shard is new again"
            ));
        }
        for DamagedSnapshot { path, what } in &restored.damaged {
            let mut aside = path.as_os_str().to_owned();
            aside.push("-damaged");
            // Out of the way of the two that are kept; where that fails it is only found damaged again.
            let _ = std::fs::rename(path, &aside);
            warn(format!(
                "{}: {what}; the snapshot before it is used, this one is {}",
                path.display(),
                Path::new(&aside).display()
            ));
        }
        let begun = |key: &str| {
            let saved = self.job.saved.as_ref();
            saved.is_none_or(|saved| saved.sites.iter().any(|known| known.key == key))
        };
        for site in self.job.sites.sites.iter().filter(|site| !begun(&site.key)) {
            warn(format!(
                "{} was not gathered before: it begins without the rows of {} shards",
                site.name, restored.gathered.shards
            ));
        }
        let done = restored.gathered.position;
        let again = journal.records().iter().filter(|r| r.number > done).count();
        if restored.gathered.position > 0 || again > 0 {
            self.reporter.say(&Event::Restored {
                state: self.state.path.display().to_string(),
                shards: restored.gathered.shards,
                again,
                progress: restored.solved_for.as_deref() == solved_for || done == 0,
            });
        }
    }
}

/// The shards that the statistics hold are known to the intake; their files may be consumed.
fn held(journal: &Journal, position: u64, intake: &mut Intake) -> Vec<(String, Identity)> {
    let mut consumable = Vec::new();
    for record in journal.records().iter().filter(|r| r.number <= position) {
        intake.accept(record.content.clone());
        intake.done_with(record.name.clone().into(), record.file);
        consumable.push((record.name.clone(), record.file));
    }
    consumable
}

/// The exit code, and the last words.
fn end(
    settings: &Settings,
    watch: &Path,
    reporter: &Reporter,
    fed: &FeedReport,
) -> Result<Exit, Fatal> {
    let once = settings.convergence.is_once();
    match &fed.drained {
        Some(Drained::CutOff) if once => return Err(Fatal::Interrupted),
        Some(Drained::CutOff) => reporter.say(&Event::Warning {
            subject: "last generation",
            message: Fatal::Interrupted.to_string(),
        }),
        _ if fed.held == 0 && once => return nothing_usable(watch, fed.refused),
        None if settings.weights.checkpoint.is_some() && fed.held > 0 => {
            reporter.say(&Event::NothingNew { shards: fed.held });
        }
        None => reporter.say(&Event::Gathered {
            state: settings.state.display().to_string(),
            shards: fed.held,
        }),
        Some(_) => {}
    }
    Ok(if once && fed.refused > 0 {
        Exit::Quarantined
    } else {
        Exit::Done
    })
}

fn nothing_usable(watch: &Path, refused: usize) -> Result<Exit, Fatal> {
    Err(Fatal::NothingUsable {
        folder: watch.to_path_buf(),
        refused,
    })
}

fn watch_folder(settings: &Settings, watch: &Path, reporter: &Reporter) -> Watcher {
    Watcher::start(watch, settings.source.mode, |message| {
        reporter.say(&Event::Warning {
            subject: "watched folder",
            message,
        });
    })
}

/// A live run that begins: it waits for the first shards, which say which modules share an input.
struct First<'a> {
    settings: &'a Settings,
    weights: Option<&'a Weights>,
    reporter: &'a Reporter,
    intake: &'a mut Intake,
    watcher: &'a mut Watcher,
}

impl First<'_> {
    fn wait(&mut self, mut job: Prepared, stop: &AtomicBool) -> Result<Prepared, Fatal> {
        let mut refused = Vec::new();
        while job.saved.is_none() && job.admitted.is_empty() && !stop.load(Ordering::SeqCst) {
            refused.append(&mut job.refused);
            let deadline = Instant::now() + self.settings.source.rescan;
            let verdict = self.intake.next_verdict().unwrap_or(deadline);
            self.watcher.wait(verdict.min(deadline));
            match Prepared::prepare(self.settings, self.weights, Some(&mut *self.intake)) {
                Ok(again) => job = again,
                // The folder is gone for a while.
                Err(Fatal::Io { .. }) => {}
                Err(fatal) => return Err(fatal),
            }
            self.watcher.renew(|_| ());
            for message in &job.refused {
                self.reporter.say(&Event::ShardQuarantined {
                    message: message.clone(),
                });
            }
            job.plan.check(self.settings)?;
        }
        job.refused.append(&mut refused);
        Ok(job)
    }
}

/// The first SIGINT or SIGTERM sets the flag; the second ends the process at once. What is published or saved by
/// then is complete, because it is renamed in.
fn signals() -> Result<Arc<AtomicBool>, Fatal> {
    let stop = Arc::new(AtomicBool::new(false));
    for (signal, status) in [(SIGINT, SECOND_SIGINT), (SIGTERM, SECOND_SIGTERM)] {
        signal_hook::flag::register_conditional_shutdown(signal, status, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(Fatal::io(Path::new("signals"), "register"))?;
    }
    Ok(stop)
}

/// A signal ends the wait for shards.
fn wake_by_signals(wake: &Wake) -> Result<(), Fatal> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])
        .map_err(Fatal::io(Path::new("signals"), "register"))?;
    let wake = wake.clone();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for _ in signals.forever() {
                wake.wake();
            }
        })
        .map(drop)
        .map_err(Fatal::io(Path::new("signals"), "start the thread"))
}

/// Says that the folder is watched.
fn ready(watch: &Path, reporter: &Reporter, live: bool) {
    if live {
        reporter.say(&Event::Watching {
            folder: watch.display().to_string(),
        });
        systemd::notify("READY=1");
    }
}

fn announce(settings: &Settings, reporter: &Reporter, job: &Prepared, weights: Option<&Weights>) {
    reporter.say(&Event::Started {
        checkpoint: weights.map_or_else(
            || "no checkpoint, statistics only".into(),
            |w| w.path().display().to_string(),
        ),
        layers: weights.map_or(0, |w| w.layers().len()),
        sites: job.sites.sites.len(),
        shards: job.admitted.len(),
        method: settings.solve.method.name(),
        threads: settings.compute.threads,
        planned_bytes: job.plan.total_bytes,
        budget_bytes: settings.compute.memory_budget.bytes,
        device: device(settings),
    });
    let passed_over = weights.map_or(&[][..], Weights::passed_over);
    if let Some(first) = passed_over.first() {
        let count = passed_over.len();
        let message = format!(
            "{count} weights of more than two dimensions are not corrected ('{first}' first)"
        );
        reporter.say(&Event::Warning {
            subject: "checkpoint",
            message,
        });
    }
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
fn device(settings: &Settings) -> String {
    let kernel = settings.compute.kernel.name();
    match qera_gpu::probe() {
        qera_gpu::Probe::Unavailable(reason) => {
            format!("computing on the CPU by {kernel} kernels ({reason})")
        }
        found => format!(
            "computing on the CPU by {kernel} kernels ({found:?} is not used by this version)"
        ),
    }
}
