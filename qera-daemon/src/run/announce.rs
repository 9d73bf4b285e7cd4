//! What a run says before its first row: what it begins with, what the state holds, and that it is
//! ready.

use std::path::Path;

use crate::disk;
use crate::error::Fatal;
use crate::host::kernels::names::KernelNames;
use crate::observe::event::Event;
use crate::observe::reporter::Reporter;
use crate::observe::run_events::{RunStarted, StateRestored};
use crate::observe::systemd;
use crate::plan::device_plan::without_room;
use crate::publish::target::{DamagedGeneration, Target};
use crate::run::begun::Begun;
use crate::run::prepared::Prepared;
use crate::settings::Settings;
use crate::state::journal::Journal;
use crate::state::restore::{DamagedSnapshot, Restored, SiteBehind};
use crate::weights::Weights;
use crate::weights::given::given_layers::{GivenLayer, GivenLayers};
use crate::weights::passed_over::{PassedOver, grouped};

/// Starts the device, before anything is computed.
///
/// # Errors
/// [`Fatal::Usage`] for one that was named and cannot be used.
pub(crate) fn start_device(settings: &Settings, reporter: &Reporter) -> Result<(), Fatal> {
    let compute = &settings.compute;
    compute.device.start(compute.kernel, |message| {
        let subject = "--device";
        reporter.say(&Event::Warning { subject, message });
    })
}

/// How many kinds of passed-over tensors the log names.
const SAID: usize = 8;

/// Says what is worked on, and with what. This is the first line of a run and of `solve`.
pub(crate) fn tell_started(prepared: &Prepared<'_>, shards: usize, reporter: &Reporter) {
    let settings = prepared.settings;
    reporter.say(&Event::Started(RunStarted {
        checkpoint: prepared.weights.as_deref().map_or_else(
            || "no checkpoint, statistics only".into(),
            |weights| weights.path().display().to_string(),
        ),
        quantized: quantized_file(prepared),
        packing: packing(prepared),
        layers: prepared.layers().len(),
        sites: prepared.sites.sites.len(),
        shards,
        method: settings.solve.method.name(),
        threads: settings.compute.threads,
        planned_bytes: prepared.plan.total_bytes,
        budget_bytes: settings.compute.memory_budget.bytes,
        device: device(settings),
    }));
    if let Some(message) = without_room(&prepared.plan.summed.without_room) {
        reporter.say(&Event::Warning {
            subject: "--memory-budget",
            message,
        });
    }
    let unused = prepared.statistics_of_no_weight();
    if let Some(first) = unused.first() {
        reporter.say(&Event::Warning {
            subject: "state",
            message: format!(
                "{} of its inputs belong to no weight of the checkpoint ('{first}' first): their rows \
                 are not used",
                unused.len()
            ),
        });
    }
}

/// Warns of files that are not as they were written, so that somebody may find out who changes
/// them. Missing files of a base were written again; a damaged current generation will be published
/// again.
pub(crate) fn warn_of_files(target: &Target<'_>, reporter: &Reporter) {
    if let Some(DamagedGeneration { number, files }) = target.damage() {
        for of in files {
            reporter.say(&Event::Warning {
                subject: "current generation",
                message: format!(
                    "{number} is damaged: {} {}; its corrections are published again under a new number",
                    of.name, of.how
                ),
            });
        }
    }
    for of in target.damaged_beside_bases() {
        reporter.say(&Event::Warning {
            subject: &of.name,
            message: format!("is damaged: it {}", of.how),
        });
    }
    for path in target.restored() {
        reporter.say(&Event::Warning {
            subject: &path.display().to_string(),
            message: "was gone from the base, and is written again".into(),
        });
    }
}

/// The file or folder that W~ is read from.
fn quantized_file(prepared: &Prepared<'_>) -> Option<String> {
    let given = prepared.weights.as_deref()?.given()?;
    Some(given.given.path().display().to_string())
}

/// How that folder is packed.
fn packing(prepared: &Prepared<'_>) -> Option<String> {
    let given = prepared.weights.as_deref()?.given()?;
    let method = given.given.method()?;
    Some(match given.zero_points() {
        Some(zeros) => format!("{method}, {zeros}"),
        None => method.to_owned(),
    })
}

/// Says what is worked on, and what of the model is not corrected.
pub(crate) fn tell_model(prepared: &Prepared<'_>, reporter: &Reporter) {
    let shards = prepared.admitted.len() + prepared.held.len();
    tell_started(prepared, shards, reporter);
    if let Some(weights) = &prepared.weights {
        tell_stray(weights, reporter);
        tell_far(weights, reporter);
        tell_zero_points(weights, reporter);
        tell_idle_patterns(prepared, weights, reporter);
        tell_passed_over(weights, reporter);
    }
}

/// Says which `--exclude` leaves nothing out: a slip of the pen would correct what was to stay as
/// it is. It may name a module of the shards alone.
fn tell_idle_patterns(prepared: &Prepared<'_>, weights: &Weights, reporter: &Reporter) {
    let modules = weights.modules();
    let modules: Vec<&str> = modules.chain(prepared.recording.linears.all()).collect();
    for pattern in prepared.settings.weights.selection.idle(&modules) {
        reporter.say(&Event::Warning {
            subject: "--exclude",
            message: format!(
                "'{pattern}' matches no weight of {}, and leaves nothing out",
                weights.path().display()
            ),
        });
    }
}

/// Says what the run begins with.
pub(crate) fn announce(prepared: &Prepared<'_>, reporter: &Reporter) {
    tell_model(prepared, reporter);
    if prepared.ignored_files > 0 {
        reporter.say(&Event::Warning {
            subject: "watched folder",
            message: format!(
                "{} files are no .safetensors and were ignored",
                prepared.ignored_files
            ),
        });
    }
    for message in &prepared.refused {
        reporter.say(&Event::ShardQuarantined {
            message: message.clone(),
        });
    }
}

/// Says which file beside the checkpoint's is not read.
pub(crate) fn tell_stray(weights: &Weights, reporter: &Reporter) {
    if let Some(stray) = weights.stray() {
        reporter.say(&Event::Warning {
            subject: "checkpoint",
            message: stray.to_owned(),
        });
    }
}

/// Says which tensors of the quantized model differ more from W than their types explain.
pub(crate) fn tell_far(weights: &Weights, reporter: &Reporter) {
    let far: Vec<String> = weights
        .given()
        .map_or_else(Vec::new, |of| of.far().map(GivenLayer::far).collect());
    if let Some(first) = far.first() {
        reporter.say(&Event::Warning {
            subject: "--quantized",
            message: format!(
                "{} tensors differ more from the checkpoint's weights than rounding to their types \
                 explains ({first}): was the file made from this very checkpoint?",
                far.len()
            ),
        });
    }
}

/// Says that zero points are stored in another way than the quantized model itself states.
pub(crate) fn tell_zero_points(weights: &Weights, reporter: &Reporter) {
    let zeros = weights.given().and_then(GivenLayers::zero_points);
    if let Some(zeros) = zeros.filter(|zeros| zeros.otherwise > 0) {
        reporter.say(&Event::Warning {
            subject: "--quantized",
            message: format!(
                "{zeros} is nearer to the checkpoint's weights, and is what is corrected; its \
                 checkpoint_format says {}: an engine that goes by it serves other weights",
                zeros.said.name()
            ),
        });
    }
}

/// Says which linear maps are not corrected although nobody asked to leave them out.
fn tell_passed_over(weights: &Weights, reporter: &Reporter) {
    let unasked = weights
        .passed_over()
        .iter()
        .filter(|of| of.why.is_unasked());
    let (broken, others): (Vec<PassedOver>, Vec<_>) =
        unasked.cloned().partition(|of| of.why.is_broken());
    let said = |of: &[PassedOver]| -> Vec<String> {
        let groups = grouped(of, weights.parameters());
        groups.iter().map(ToString::to_string).collect()
    };
    let mut others = said(&others);
    let more = others.len().saturating_sub(SAID);
    others.truncate(SAID);
    // Each broken layer is named.
    let mut lines = said(&broken);
    lines.append(&mut others);
    if more > 0 {
        lines.push(format!(
            "{more} more kinds of tensors (`plan` and the manifest have them)"
        ));
    }
    for line in lines {
        reporter.say(&Event::Warning {
            subject: "not corrected",
            message: line,
        });
    }
}

/// Says that the folder is watched.
pub(crate) fn ready(watch: &Path, reporter: &Reporter) {
    reporter.say(&Event::Watching {
        folder: watch.display().to_string(),
    });
    systemd::notify("READY=1");
}

/// Says what the state holds.
pub(crate) fn tell_restored(
    begun: &Begun<'_>,
    journal: &Journal,
    torn: usize,
    restored: &Restored,
    solved_for: Option<&str>,
    reporter: &Reporter,
) {
    if let Some(target) = &begun.target {
        warn_of_files(target, reporter);
    }
    let warn = |message: String| {
        reporter.say(&Event::Warning {
            subject: "state",
            message,
        });
    };
    if torn > 0 {
        warn(format!(
            "the journal's end was cut off ({torn} bytes): the shards in it are new again"
        ));
    }
    for DamagedSnapshot { path, what } in &restored.damaged {
        let mut aside = path.as_os_str().to_owned();
        aside.push("-damaged");
        // It is moved out of the way of the two that are kept. If that fails, it is only found
        // damaged again.
        let _ = disk::rename(path, Path::new(&aside));
        warn(format!(
            "{}: {what}; the snapshot before it is used, this one is {}",
            path.display(),
            Path::new(&aside).display()
        ));
    }
    let from = restored.folds_again_from();
    let beyond = |position| {
        journal
            .records()
            .iter()
            .filter(move |r| r.number > position)
    };
    for SiteBehind { what, position, .. } in &restored.behind {
        warn(format!(
            "{what}; what an older snapshot has of it is used, and {} shards are folded again for it",
            beyond(*position).count() - beyond(restored.gathered.position).count()
        ));
    }
    for site in begun.prepared.sites_without_statistics() {
        warn(format!(
            "{} was not gathered before: it begins without the rows of {} shards",
            site.name, restored.gathered.shards
        ));
    }
    let done = restored.gathered.position;
    let again = beyond(from).count();
    if restored.gathered.position > 0 || again > 0 {
        reporter.say(&Event::Restored(StateRestored {
            state: begun.state.path.display().to_string(),
            shards: restored.gathered.shards,
            again,
            progress: restored.solved_for.as_deref() == solved_for || done == 0,
        }));
    }
}

/// What computes: the CPU, and a device beside it, or why there is none.
fn device(settings: &Settings) -> String {
    let compute = &settings.compute;
    let mut kernel = KernelNames::of(compute.kernel).to_string();
    if let Some(what) = &compute.done_without {
        kernel = format!("{kernel} {what}");
    }
    let refused = compute.device.refused();
    match compute.device.accelerator() {
        Some(accelerator) => format!(
            "computing on {}, and what does not fit or is too small on the CPU by {kernel}{}",
            accelerator.name(),
            refused.map_or_else(String::new, |why| format!(" (passed over: {why})"))
        ),
        None => format!(
            "computing on the CPU by {kernel} ({})",
            refused.as_deref().unwrap_or("--device cpu")
        ),
    }
}
