//! What an output folder belongs to, by its current generation: a run on something else is refused.

use crate::error::Fatal;
use crate::publish::current::{CurrentSettings, belongs_to};
use crate::publish::out_folder::OutFolder;
use crate::settings::Settings;
use crate::settings::rounding::Rounding;
use crate::settings::weight_format::WeightFormat;
use crate::weights::given::GivenModel;
use crate::weights::opening::Model;

/// Refuses a W~ other than the current generation's, because whatever follows `current` serves it
/// on one W~.
///
/// # Errors
/// [`Fatal::StateRefused`] where the current generation belongs on another.
pub(crate) fn refuse_other_rounded(out: &OutFolder, digest: Option<&str>) -> Result<(), Fatal> {
    let found = belongs_to(out)?.and_then(|current| current.fingerprints.rounded);
    let (Some(found), Some(own)) = (found, digest) else {
        return Ok(());
    };
    if found == own {
        return Ok(());
    }
    Err(Fatal::StateRefused {
        path: out.path.clone(),
        reason: format!(
            "its current generation corrects another W~ ({found}, this run's is {own}): choose another --out, or solve from the state that made it"
        ),
    })
}

/// Refuses another quantizer, rounding or given file than the current generation's, because an
/// engine that follows `current` serves it on one kind of weights.
///
/// # Errors
/// [`Fatal::StateRefused`] where the current generation is for another.
pub(crate) fn refuse_other_quantizer(
    out: &OutFolder,
    settings: &Settings,
    model: Option<&Model>,
) -> Result<(), Fatal> {
    let Some(current) = belongs_to(out)? else {
        return Ok(());
    };
    let CurrentSettings {
        format: found,
        rounding,
    } = current.settings;
    let refuse = |found: &str, own: &str| {
        Err(Fatal::StateRefused {
            path: out.path.clone(),
            reason: format!(
                "its current generation corrects {found}, this run uses {own}: choose another --out"
            ),
        })
    };
    let own = model.and_then(Model::given).map_or_else(
        || WeightFormat::of(settings.weights.quantizer),
        GivenModel::format,
    );
    if found != own {
        return refuse(&found.to_string(), &own.to_string());
    }
    let given = model.and_then(Model::given).map(|of| &of.fingerprint);
    let found = current.fingerprints.quantized;
    match (found, given) {
        (Some(found), Some(own)) if found != *own && !settings.weights.new_checkpoint => refuse(
            &format!("another --quantized file ({found})"),
            &format!("one of {own}"),
        ),
        _ => {
            let rounding = rounding.map_or(Rounding::Nearest.name().into(), |of| of.name);
            refuse_other_rounding(out, &rounding, settings.rounding.rounding)
        }
    }
}

fn refuse_other_rounding(out: &OutFolder, found: &str, own: Rounding) -> Result<(), Fatal> {
    if found == own.name() {
        return Ok(());
    }
    Err(Fatal::StateRefused {
        path: out.path.clone(),
        reason: format!(
            "its current generation corrects weights that were rounded by {found}, this run rounds by {}: choose another --out",
            own.name()
        ),
    })
}

/// Refuses another checkpoint than the current generation's, because whatever follows `current`
/// serves it on the base of one checkpoint. A generation whose program did not name its checkpoint
/// is accepted.
///
/// # Errors
/// [`Fatal::StateRefused`] with both fingerprints, where the current generation is of another and
/// `--new-checkpoint` does not say that this is meant.
pub(crate) fn refuse_other_checkpoint(
    out: &OutFolder,
    settings: &Settings,
    model: Option<&Model>,
) -> Result<(), Fatal> {
    let found = belongs_to(out)?.and_then(|current| current.fingerprints.model);
    let (Some(found), Some(model)) = (found, model) else {
        return Ok(());
    };
    if settings.weights.new_checkpoint || found == model.identity {
        return Ok(());
    }
    let own = &model.identity;
    Err(Fatal::StateRefused {
        path: out.path.clone(),
        reason: format!(
            "its current generation is of another checkpoint ({found}, this one is {own}): choose another --out, or say --new-checkpoint"
        ),
    })
}
