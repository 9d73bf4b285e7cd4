//! What can be done beside the main job: `plan`, `status`, and `solve`, which makes another adapter of saved statistics.

use core::sync::atomic::AtomicBool;
use std::io::Write;
use std::path::Path;

use crate::checkpoint::Layer;
use crate::cores::Cores;
use crate::error::Stop;
use crate::exit::Exit;
use crate::job::{Job, Weights, solver};
use crate::observe::{Event, Reporter};
use crate::pipeline::{Board, Drained, Pipeline};
use crate::publish::Target;
use crate::settings::Settings;
use crate::state::{Status, restore};

/// Writes to standard output.
///
/// # Errors
/// [`Stop::Io`].
pub fn print(text: &str) -> Result<Exit, Stop> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(Stop::io(Path::new("standard output"), "write"))?;
    Ok(Exit::Done)
}

/// `plan`: prints what a run would need, and which shards it would set aside.
///
/// # Errors
/// [`Stop::OverBudget`] where it does not fit, [`Stop`] for what cannot serve.
pub fn plan(settings: &Settings, reporter: &Reporter) -> Result<Exit, Stop> {
    let job = Job::plan(settings)?;
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
/// [`Stop`] where there is no state.
pub fn status(settings: &Settings, json: bool) -> Result<Exit, Stop> {
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
/// [`Stop::StateRefused`] for what was not gathered, [`Stop`] otherwise.
pub fn solve(settings: &Settings, reporter: &Reporter) -> Result<Exit, Stop> {
    settings.needed_checkpoint()?;
    let Some(weights) = Weights::open(settings)? else {
        return Ok(Exit::Failure);
    };
    let layers: &[Layer] = &weights.layers.selected;
    let job = Job::prepare(settings, Some(&weights), None)?;
    let refuse = |reason: String| Stop::StateRefused {
        path: settings.state.clone(),
        reason,
    };
    let Some(saved) = &job.saved else {
        return Err(refuse(
            "holds no statistics: --state names the folder of the run that gathered them".into(),
        ));
    };
    let known = |key: &str| saved.sites.iter().any(|(saved, ..)| saved == key);
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
    let target = Target::open(settings, &weights.checkpoint, layers)?;
    let status = job.status(settings, layers, &restored.sites);
    let cores = Cores::new(settings.threads);
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
