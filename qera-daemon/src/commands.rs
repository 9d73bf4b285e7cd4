//! What can be done beside the main job: `plan`, `status`, and `solve`, which makes another adapter of saved statistics.

use core::sync::atomic::AtomicBool;
use std::io::Write;
use std::path::Path;

use crate::error::Fatal;
use crate::exit::Exit;
use crate::host::cores::Cores;
use crate::observe::event::Event;
use crate::observe::reporter::Reporter;
use crate::observe::status::Status;
use crate::pipeline::Pipeline;
use crate::pipeline::board::Board;
use crate::pipeline::publisher::Drained;
use crate::publish::target::Target;
use crate::run::prepared::{Prepared, solver};
use crate::settings::Settings;
use crate::state::restore::restore;
use crate::weights::Weights;

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
    let job = Prepared::plan(settings)?;
    print(&job.plan.text(settings))?;
    for message in job.refused {
        reporter.say(&Event::ShardQuarantined { message });
    }
    job.plan.check(settings)?;
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

/// Solves every selected layer from what a state holds, and publishes. The state is only read: a daemon may be
/// working with it.
///
/// # Errors
/// [`Fatal::StateRefused`] for what was not gathered, [`Fatal`] otherwise.
pub(crate) fn solve(settings: &Settings, reporter: &Reporter) -> Result<Exit, Fatal> {
    settings.weights.needed_checkpoint()?;
    let Some(weights) = Weights::open(settings)? else {
        return Ok(Exit::Failure);
    };
    let layers = weights.layers();
    let job = Prepared::prepare(settings, Some(&weights), None)?;
    let refuse = |reason: String| Fatal::StateRefused {
        path: settings.state.clone(),
        reason,
    };
    let Some(saved) = &job.saved else {
        return Err(refuse(
            "holds no statistics: --state names the folder of the run that gathered them".into(),
        ));
    };
    let known = |key: &str| saved.sites.iter().any(|saved| saved.key == key);
    if let Some(site) = job.sites.sites.iter().find(|site| !known(&site.key)) {
        return Err(refuse(format!(
            "was gathered without {}: --exclude it, or gather it first",
            site.name
        )));
    }
    job.plan.check(settings)?;
    let restored = restore(&settings.state, None, &job.expected(layers, None))?;
    if restored.gathered.position == 0 {
        return Err(refuse("holds no snapshot yet".into()));
    }
    let target = Target::open(settings, &weights)?;
    let status = job.status(settings, layers, &restored.sites);
    let cores = Cores::new(settings.compute.threads);
    let fed = Pipeline {
        settings,
        sites: &job.sites,
        keeps_r: job.keeps_r,
        scored_shares: job.scored_shares(layers),
        gathered: restored.gathered,
        restored: restored.sites,
        floor: 0,
        solver: Some(solver(settings, &weights, &cores)),
        cores: &cores,
        stop: &AtomicBool::new(false),
        reporter,
        board: &Board::new(None, status),
    }
    .run(None, Some(target))?;
    Ok(match fed.drained {
        Some(Drained::Published(_)) => Exit::Done,
        _ => Exit::Failure,
    })
}
