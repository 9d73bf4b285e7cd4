//! What can be done beside the main job: `plan`, `status`, `verify`, and `solve`, which makes
//! another adapter of saved statistics.

use core::sync::atomic::AtomicBool;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crate::error::Fatal;
use crate::exit::Exit;
use crate::host::cores::Cores;
use crate::observe::event::Event;
use crate::observe::reporter::Reporter;
use crate::observe::status::Status;
use crate::pipeline;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::outcome::{Drained, UnreadShards};
use crate::publish::check::{HeldAgainst, check};
use crate::publish::out_folder::OutFolder;
use crate::publish::target::{
    Target, refuse_other_checkpoint, refuse_other_quantizer, refuse_to_round,
};
use crate::run::announce::{tell_started, tell_stray};
use crate::run::prepared::Prepared;
use crate::settings::Settings;
use crate::source::intake::Intake;
use crate::state::restore::restore;
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
/// [`Fatal::OverBudget`] where it does not fit, [`Fatal`] for what cannot serve.
pub(crate) fn plan(settings: &Settings, reporter: &Reporter) -> Result<Exit, Fatal> {
    let model = Model::open(settings)?;
    let mut intake = settings
        .source
        .watch
        .as_ref()
        .map(|w| Intake::new(w, false));
    let prepared = Prepared::prepare(settings, model.as_ref(), intake.as_mut())?;
    print(&prepared.plan.text(settings))?;
    if let Some(weights) = &prepared.weights {
        tell_stray(weights, reporter);
    }
    for message in prepared.refused {
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

/// `verify`: prints what is wrong with an adapter's files; the exit code says whether anything is.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn verify(adapter: &Path, base: Option<&Path>) -> Result<Exit, Fatal> {
    let against = base.map_or(HeldAgainst::Named, HeldAgainst::Folder);
    let findings = check(adapter, against);
    print(&findings.text())?;
    Ok(if findings.holds() {
        Exit::Done
    } else {
        Exit::Failure
    })
}

/// Solves every selected layer from what a state holds, and publishes. The state is only read: a
/// daemon may be working with it.
///
/// # Errors
/// [`Fatal::StateRefused`] for what was not gathered, [`Fatal`] otherwise.
pub(crate) fn solve(settings: &Settings, reporter: &Reporter) -> Result<Exit, Fatal> {
    settings.weights.needed_checkpoint()?;
    let model = Model::open(settings)?;
    let prepared = Prepared::prepare(settings, model.as_ref(), None)?;
    check_gathered(&prepared)?;
    prepared.plan.check(settings)?;
    let restored = restore(&settings.state, None, &prepared.expected(None))?;
    if restored.gathered.position == 0 {
        return Err(refuse(settings, "holds no snapshot yet".into()));
    }
    let Some(weights) = &prepared.weights else {
        return Ok(Exit::Failure);
    };
    let out = OutFolder::open(&settings.publish.out)?;
    refuse_other_quantizer(&out, settings, model.as_ref())?;
    refuse_other_checkpoint(&out, settings, model.as_ref())?;
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
    let target = Target::open(out, settings, Arc::clone(weights))?;
    tell_started(&prepared, restored.gathered.shards, reporter);
    let ledger = Ledger::begin(None, prepared.entries(&restored));
    let cores = Cores::new(settings.compute.threads);
    // A signal ends this command at once.
    let stopping = AtomicBool::new(false);
    let context = prepared.context(&cores, reporter, &ledger, &stopping);
    let gathered = restored.gathered;
    let drained = pipeline::run(&context, restored.sites, Some(target), |dealer| {
        Ok(Some(dealer.drain(&gathered, UnreadShards::default())))
    })?;
    Ok(match drained {
        Some(Drained::Published) => Exit::Done,
        _ => Exit::Failure,
    })
}

/// Whether the state holds every site that is to be solved.
fn check_gathered(prepared: &Prepared<'_>) -> Result<(), Fatal> {
    if prepared.saved.is_none() {
        return Err(refuse(
            prepared.settings,
            "holds no statistics: --state names the folder of the run that gathered them".into(),
        ));
    }
    // One that a shard named and none fed is quantized without correction.
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
