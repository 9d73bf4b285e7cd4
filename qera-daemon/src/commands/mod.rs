//! The commands beside the main job: `plan`, `status`, and `solve`, which makes another adapter
//! from saved statistics. `export`, `report` and `verify` have files of their own.

pub(crate) mod export;
pub(crate) mod report;
pub(crate) mod verify;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crate::calibrate::imatrix_files::ImatrixFiles;
use crate::error::Fatal;
use crate::exit::Exit;
use crate::observe::event::Event;
use crate::observe::reporter::Reporter;
use crate::observe::status::Status;
use crate::plan::choices::choices;
use crate::plan::imatrix_plan::ImatrixPlan;
use crate::publish::bases::refuse_to_round;
use crate::publish::target::Target;
use crate::run::announce::{
    start_device, tell_far, tell_started, tell_stray, tell_zero_points, warn_of_files,
};
use crate::run::cold::{Cold, open_out};
use crate::run::given::{GivenTo, given, prepare_alone, tell_given};
use crate::run::prepared::Prepared;
use crate::settings::Settings;
use crate::source::intake::Intake;
use crate::state::asked::check_window_memory;
use crate::state::read_identity;
use crate::state::restore::{list_of, restore};
use crate::weights::opening::Model;
use crate::weights::rounded_folders::RoundedFolders;
use crate::weights::sites::Site;

/// Writes to standard output.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn print(text: &str) -> Result<Exit, Fatal> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(Fatal::io(Path::new("standard output"), "write"))?;
    Ok(Exit::Done)
}

/// `plan`: prints what a run would need, and which shards it would set aside.
///
/// # Errors
/// [`Fatal::OverBudget`] where the run does not fit, [`Fatal`] for settings that cannot be used.
pub(crate) fn plan(settings: &Settings, reporter: &Reporter) -> Result<Exit, Fatal> {
    start_device(settings, reporter)?;
    let model = Model::open(settings)?;
    let files = ImatrixFiles::open(&settings.imatrix)?;
    let watch = settings.source.watch.as_ref();
    let mut intake = watch.map(|w| Intake::new(w, false));
    let mut prepared = if settings.imatrix.is_given() && watch.is_none() {
        prepare_alone(settings, model.as_ref())?
    } else {
        Prepared::prepare(settings, model.as_ref(), intake.as_mut())?
    };
    let given = given(files.as_ref(), &prepared)?;
    prepared.plan.imatrix = given.as_ref().map(ImatrixPlan::new);
    let chooses = !settings.rounding.rounding.uses_rows() && !settings.imatrix.is_given();
    if let Some(weights) = prepared.weights.as_deref().filter(|_| chooses) {
        prepared.plan.choices = choices(settings, weights, &prepared.sites);
    }
    print(&prepared.plan.text(settings))?;
    if let Some(weights) = &prepared.weights {
        tell_stray(weights, reporter);
        tell_far(weights, reporter);
        tell_zero_points(weights, reporter);
    }
    for message in prepared.refused.into_iter().chain(prepared.unanswered) {
        reporter.say(&Event::ShardQuarantined { message });
    }
    prepared.plan.check(settings)?;
    Ok(Exit::Done)
}

/// `status`: prints what a state holds and what the daemon that works with it is doing.
///
/// # Errors
/// [`Fatal`] where there is no state.
pub(crate) fn status(settings: &Settings, json: bool) -> Result<Exit, Fatal> {
    let found = Status::read(&settings.state)?;
    print(&if json {
        serde_json::to_string_pretty(&found).unwrap_or_default() + "\n"
    } else {
        found.table()
    })
}

/// Solves every selected layer from a state, and publishes. The state is only read, so that a
/// daemon may work with it meanwhile. Its rows were kept within the `--window-memory` of the run
/// that gathered them; if the option is given here (`window_is_said`), it must have the same value.
///
/// # Errors
/// [`Fatal::StateRefused`] for a layer that was not gathered, [`Fatal`] otherwise.
pub(crate) fn solve(
    settings: &Settings,
    window_is_said: bool,
    reporter: &Reporter,
) -> Result<Exit, Fatal> {
    settings.weights.needed_checkpoint()?;
    start_device(settings, reporter)?;
    let model = Model::open(settings)?;
    let files = ImatrixFiles::open(&settings.imatrix)?;
    let prepared = Prepared::prepare(settings, model.as_ref(), None)?;
    check_gathered(&prepared)?;
    if let Some(saved) = prepared.saved.as_ref().filter(|_| window_is_said) {
        check_window_memory(&settings.state, saved, settings.compute.window_memory)?;
    }
    prepared.plan.check(settings)?;
    let restored = restore(&settings.state, &prepared.expected(None))?;
    if !restored.damaged.is_empty() {
        let message = format!("{}; the one before is used", list_of(&restored.damaged));
        let subject = "state";
        reporter.say(&Event::Warning { subject, message });
    }
    if restored.gathered.position == 0 {
        return Err(refuse(settings, "holds no snapshot yet".into()));
    }
    let Some(weights) = &prepared.weights else {
        return Ok(Exit::Failure);
    };
    let given = given(files.as_ref(), &prepared)?;
    let out = open_out(settings, model.as_ref())?;
    if weights.rounding().uses_rows() {
        let (again, new_checkpoint) = (
            settings.rounding.round_again,
            settings.weights.new_checkpoint,
        );
        if again {
            refuse_to_round(&out)?;
        }
        let folders = RoundedFolders::of_solve(&settings.state, &out.path, again, new_checkpoint);
        weights.keep_rounded_in(&folders)?;
        if !weights.has_all_quantized() {
            refuse_to_round(&out)?;
        }
    }
    let identity = read_identity(&settings.state)?;
    let mut target = Target::open(out, settings, Arc::clone(weights), identity)?;
    target.take_imatrix(given.as_ref());
    tell_started(&prepared, restored.gathered.shards, reporter);
    warn_of_files(&target, reporter);
    if let Some(given) = &given {
        let told = GivenTo {
            weights,
            rows_may_come: false,
        };
        tell_given(given, &told, reporter);
    }
    Cold {
        prepared: &prepared,
        restored,
        given: given.as_ref(),
        target,
    }
    .publish(reporter)
}

/// Checks that the state holds every site that is to be solved.
fn check_gathered(prepared: &Prepared<'_>) -> Result<(), Fatal> {
    if prepared.saved.is_none() {
        return Err(refuse(
            prepared.settings,
            "holds no statistics: --state names the folder of the run that gathered them".into(),
        ));
    }
    // A site that a shard named, and that has no rows, is quantized without correction.
    let named = |site: &&Site| {
        let mut layers = site.layers.iter().map(|&layer| &prepared.layers()[layer]);
        layers.any(|layer| prepared.recording.linears.names(&layer.name))
    };
    let mut missing = prepared.sites_without_statistics().into_iter();
    match missing.find(|site| !named(site)) {
        None => Ok(()),
        Some(site) => Err(refuse(
            prepared.settings,
            format!(
                "was gathered without {}: --exclude it, or gather it first",
                site.name
            ),
        )),
    }
}

fn refuse(settings: &Settings, reason: String) -> Fatal {
    Fatal::StateRefused {
        path: settings.state.clone(),
        reason,
    }
}
