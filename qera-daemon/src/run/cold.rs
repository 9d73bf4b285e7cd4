//! Solves once, without a folder to follow: for `solve`, and for an imatrix alone.

use core::sync::atomic::AtomicBool;

use crate::calibrate::imatrix::GivenStatistics;
use crate::error::Fatal;
use crate::exit::Exit;
use crate::host::cores::Cores;
use crate::observe::core_time_event::CoreTimeSpent;
use crate::observe::event::Event;
use crate::observe::reporter::Reporter;
use crate::pipeline;
use crate::pipeline::context::Context;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::outcome::{Drained, UnreadShards};
use crate::publish::belonging::{refuse_other_checkpoint, refuse_other_quantizer};
use crate::publish::out_folder::OutFolder;
use crate::publish::target::Target;
use crate::run::prepared::Prepared;
use crate::settings::Settings;
use crate::state::restore::Restored;
use crate::weights::opening::Model;

/// Everything that a solve without a running pipeline needs.
pub(crate) struct Cold<'a> {
    /// Sites and plan.
    pub(crate) prepared: &'a Prepared<'a>,
    /// The content of a state.
    pub(crate) restored: Restored,
    /// The imatrix that stands in for rows.
    pub(crate) given: Option<&'a GivenStatistics>,
    /// The target of the generation.
    pub(crate) target: Target<'a>,
}

/// Opens the output folder, unless it belongs to another quantizer or checkpoint.
///
/// # Errors
/// [`Fatal::Locked`], [`Fatal::StateRefused`], [`Fatal::Io`].
pub(crate) fn open_out(settings: &Settings, model: Option<&Model>) -> Result<OutFolder, Fatal> {
    settings.publish.notify.check_files()?;
    let out = OutFolder::open(&settings.publish.out)?;
    refuse_other_quantizer(&out, settings, model)?;
    refuse_other_checkpoint(&out, settings, model)?;
    Ok(out)
}

impl Cold<'_> {
    /// Solves every layer and publishes one generation.
    ///
    /// # Errors
    /// [`Fatal`]; what was published before is still there.
    pub(crate) fn publish(self, reporter: &Reporter) -> Result<Exit, Fatal> {
        let Self {
            prepared,
            restored,
            given,
            target,
        } = self;
        let ledger = Ledger::begin(None, prepared.entries(&restored));
        let cores = Cores::new(prepared.settings.compute.threads);
        // A signal ends such a run at once.
        let stopping = AtomicBool::new(false);
        let context = Context {
            imatrix: given,
            ..prepared.context(&cores, reporter, &ledger, &stopping)
        };
        let gathered = restored.gathered;
        let drained = pipeline::run(&context, restored.sites, Some(target), |dealer| {
            Ok(Some(dealer.drain(&gathered, UnreadShards::default())))
        });
        reporter.say(&Event::CoreTime(CoreTimeSpent::so_far()));
        Ok(match drained? {
            Some(Drained::Published) if ledger.failed_layers() > 0 => Exit::Quarantined,
            Some(Drained::Published) => Exit::Done,
            _ => Exit::Failure,
        })
    }
}
