//! The main job in order: open what was named, know the sites, plan, lock, wait for the first
//! shard, continue from the state, then the pipeline. Each phase is a type that holds what is known
//! then: `Prepared`, `Locked`, `Begun`, `Running`.

pub(crate) mod announce;
pub(crate) mod begun;
pub(crate) mod cold;
pub(crate) mod ending;
pub(crate) mod full_disk;
pub(crate) mod given;
pub(crate) mod inbox;
pub(crate) mod known_files;
pub(crate) mod locked;
pub(crate) mod losses;
pub(crate) mod opening;
pub(crate) mod prepared;
pub(crate) mod running;
pub(crate) mod saved_names;
pub(crate) mod signals;

use std::path::Path;

use crate::calibrate::imatrix_files::ImatrixFiles;
use crate::error::Fatal;
use crate::exit::Exit;
use crate::observe::reporter::Reporter;
use crate::run::announce::start_device;
use crate::run::ending::left_behind;
use crate::run::given::{given, run_alone};
use crate::run::inbox::Inbox;
use crate::run::locked::Locked;
use crate::run::prepared::Prepared;
use crate::run::running::Running;
use crate::run::signals::Signals;
use crate::settings::Settings;
use crate::weights::opening::Model;

/// The main job: folds, solves and publishes what the folder holds and what comes. It ends when
/// `--once` has done what is there, when the layers have converged, or when a signal comes.
///
/// # Errors
/// [`Fatal`]; what was published before is still there, and what the state holds is not lost.
pub(crate) fn run(settings: &Settings, reporter: &mut Reporter) -> Result<Exit, Fatal> {
    start_device(settings, reporter)?;
    let Some(watch) = &settings.source.watch else {
        if settings.imatrix.is_given() {
            return run_alone(settings, reporter);
        }
        return Err(Fatal::Usage(
            "--watch DIR is needed: the folder of activation shards; or --imatrix FILE".into(),
        ));
    };
    settings.rounding.refuse_round_again()?;
    run_heeding(settings, watch, &Signals::listen()?, reporter)
}

/// The main job with a watched folder, until these signals end it.
///
/// # Errors
/// The run fails, as for [`run`].
pub(crate) fn run_heeding(
    settings: &Settings,
    watch: &Path,
    signals: &Signals,
    reporter: &mut Reporter,
) -> Result<Exit, Fatal> {
    let model = Model::open(settings)?;
    let imatrix = ImatrixFiles::open(&settings.imatrix)?;
    // Watching begins before the first listing, so that nothing comes unseen between the two.
    let mut inbox = Inbox::open(settings, watch, reporter);
    if let Some(watcher) = &inbox.watcher {
        signals.wake(&watcher.handle())?;
    }
    let prepared = Prepared::prepare(settings, model.as_ref(), Some(&mut inbox.intake))?;
    prepared.plan.check(settings)?;
    // An imatrix of another model is refused before the first shard is waited for, and before a
    // state is begun.
    given(imatrix.as_ref(), &prepared)?;
    let mut locked = Locked::lock(prepared, model.as_ref(), inbox)?;
    locked.announce(reporter)?;
    locked.await_first_shard(signals, reporter)?;
    let unanswered = locked.unanswered();
    let Some(mut begun) = locked.begin(signals)? else {
        return Ok(left_behind(&unanswered, false, reporter));
    };
    begun.take_imatrix(imatrix.as_ref(), reporter)?;
    let running = Running::start(begun, reporter)?;
    reporter.begin(running.steps());
    let ended = running.run(signals, reporter);
    reporter.end();
    ended?.exit(settings, watch, reporter)
}
