//! A run's imatrix: compared with the layers, told, and handed to the publisher. Also the run that
//! has nothing but an imatrix.

use std::path::Path;
use std::sync::Arc;

use crate::calibrate::imatrix::GivenStatistics;
use crate::calibrate::imatrix_files::ImatrixFiles;
use crate::error::Fatal;
use crate::exit::Exit;
use crate::observe::event::Event;
use crate::observe::imatrix_events::ImatrixRead;
use crate::observe::reporter::Reporter;
use crate::publish::target::Target;
use crate::run::announce::{tell_model, warn_of_files};
use crate::run::begun::Begun;
use crate::run::cold::{Cold, open_out};
use crate::run::prepared::Prepared;
use crate::settings::Settings;
use crate::state::restore::Restored;
use crate::weights::Weights;
use crate::weights::checkpoint::refuse;
use crate::weights::opening::Model;

/// How many layers without an entry are named.
const NAMED: usize = 8;

/// The imatrix of a run, if it has one, and if its layers are known.
///
/// # Errors
/// [`Fatal::Imatrix`].
pub(crate) fn given(
    files: Option<&ImatrixFiles>,
    prepared: &Prepared<'_>,
) -> Result<Option<GivenStatistics>, Fatal> {
    let weights = prepared.weights.as_deref();
    let (Some(files), Some(weights)) = (files, weights) else {
        return Ok(None);
    };
    if weights.layers().is_empty() {
        // Only shards say which layers there are, but the model is known.
        files.check_names(weights)?;
        return Ok(None);
    }
    files.statistics(weights, &prepared.sites).map(Some)
}

/// The run that was given an imatrix.
pub(crate) struct GivenTo<'a> {
    /// The layers.
    pub(crate) weights: &'a Weights,
    /// Whether a folder is watched.
    pub(crate) rows_may_come: bool,
}

/// Says what was given, and for which layers it has nothing.
pub(crate) fn tell_given(given: &GivenStatistics, told: &GivenTo<'_>, reporter: &Reporter) {
    for file in &given.files {
        reporter.say(&Event::ImatrixRead(ImatrixRead(file)));
    }
    let warn = |message| {
        reporter.say(&Event::Warning {
            subject: "imatrix",
            message,
        });
    };
    for file in &given.idle {
        warn(format!("{file} has no entry of a layer that is selected"));
    }
    for file in given.files.iter().filter(|file| file.is_estimated()) {
        warn(format!(
            "{} counts chunks, each taken for as many tokens as another file's have: the weights of the files against each other are estimates",
            file.file
        ));
    }
    let layers = told.weights.layers().iter().zip(&given.layers);
    let missing = layers.filter(|(_, has_entry)| !**has_entry);
    let missing: Vec<&str> = missing.map(|(layer, _)| layer.name.as_str()).collect();
    if missing.is_empty() {
        return;
    }
    let more = missing.len().saturating_sub(NAMED);
    let named = missing[..missing.len() - more].join(", ");
    let more = match more {
        0 => String::new(),
        _ => format!(" and {more} more"),
    };
    let until = if told.rows_may_come {
        " until rows feed them"
    } else {
        ""
    };
    warn(format!(
        "it has no entry, or only zeros, for {} layers, which are starved{until}: {named}{more}",
        missing.len()
    ));
}

/// Prepares a run from an imatrix alone: no state is read, and none is begun.
///
/// # Errors
/// [`Fatal`] for settings for which an imatrix is not enough, for a checkpoint of which nothing
/// says what is linear, and for an imatrix of another model.
pub(crate) fn prepare_alone<'a>(
    settings: &'a Settings,
    model: Option<&Model>,
) -> Result<Prepared<'a>, Fatal> {
    settings.imatrix.check_alone(&settings.solve)?;
    let prepared = Prepared::without_state(settings, model)?;
    let unknown = |path: &Path, reason: &str| Err(refuse(path, reason.into()));
    let Some(weights) = prepared.weights.as_deref() else {
        settings.weights.needed_checkpoint()?;
        return Ok(prepared);
    };
    if weights.layers().is_empty() {
        return unknown(
            weights.path(),
            "nothing says which of its tensors are linear layers, and an imatrix cannot: a listed model_type in config.json says it, or --include with full names",
        );
    }
    if !model.is_some_and(|model| model.serving_is_known(&prepared.recording)) {
        return unknown(
            weights.path(),
            "nothing says which class serves it, and what that calls its layers: a listed model_type in config.json says it, or qera.class in shards (--watch)",
        );
    }
    Ok(prepared)
}

/// Warns that a generation solved from rows is about to be replaced.
fn warn_of_rows(target: &Target<'_>, reporter: &Reporter) {
    if target.position().is_some_and(|at| at.number > 0) {
        reporter.say(&Event::Warning {
            subject: "imatrix",
            message: format!(
                "the current generation in {} was solved from rows; one from the imatrix alone takes its place",
                target.out.path.display()
            ),
        });
    }
}

/// The main job without a watched folder: every layer is solved once, from the imatrix.
///
/// # Errors
/// [`Fatal`]; what was published before is still there.
pub(crate) fn run_alone(settings: &Settings, reporter: &Reporter) -> Result<Exit, Fatal> {
    let model = Model::open(settings)?;
    let files = ImatrixFiles::open(&settings.imatrix)?;
    let prepared = prepare_alone(settings, model.as_ref())?;
    let given = given(files.as_ref(), &prepared)?;
    prepared.plan.check(settings)?;
    let Some(weights) = &prepared.weights else {
        return Ok(Exit::Failure);
    };
    tell_model(&prepared, reporter);
    if let Some(given) = &given {
        let told = GivenTo {
            weights,
            rows_may_come: false,
        };
        tell_given(given, &told, reporter);
        if !given.says_something() {
            return Err(given.says_nothing());
        }
    }
    let out = open_out(settings, model.as_ref())?;
    let mut target = Target::open(out, settings, Arc::clone(weights), None)?;
    warn_of_rows(&target, reporter);
    warn_of_files(&target, reporter);
    target.take_imatrix(given.as_ref());
    Cold {
        prepared: &prepared,
        restored: Restored::default(),
        given: given.as_ref(),
        target,
    }
    .publish(reporter)
}

impl Begun<'_> {
    /// Takes the imatrix that stands in for rows, and says what it is.
    ///
    /// # Errors
    /// [`Fatal::Imatrix`] for an imatrix of another model.
    pub(crate) fn take_imatrix(
        &mut self,
        files: Option<&ImatrixFiles>,
        reporter: &Reporter,
    ) -> Result<(), Fatal> {
        self.given = given(files, &self.prepared)?;
        if let Some(target) = &mut self.target {
            target.take_imatrix(self.given.as_ref());
        }
        if let (Some(given), Some(weights)) = (&self.given, &self.prepared.weights) {
            let told = GivenTo {
                weights,
                rows_may_come: true,
            };
            tell_given(given, &told, reporter);
        }
        Ok(())
    }
}
