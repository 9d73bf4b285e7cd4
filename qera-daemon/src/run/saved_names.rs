//! The names of a state, and those of the checkpoint that it is continued with.

use crate::error::Fatal;
use crate::settings::Settings;
use crate::settings::name_map::NameMap;
use crate::source::naming::{Naming, RecordedModule, find};
use crate::state::SitesRecord;
use crate::weights::opening::Model;

/// How the names of a state that was gathered without a checkpoint relate to this checkpoint's.
///
/// # Errors
/// [`Fatal::StateRefused`] where they fit in several ways, or where it is unknown what the serving
/// class calls its layers.
pub(crate) fn saved_names(
    settings: &Settings,
    model: &Model,
    record: &SitesRecord,
) -> Result<NameMap, Fatal> {
    let sites = record.sites.iter().map(|site| RecordedModule {
        name: site.name.clone(),
        in_features: site.in_features,
    });
    let sites: Vec<_> = sites.collect();
    let refuse = |reason| {
        Err(Fatal::StateRefused {
            path: settings.state.clone(),
            reason,
        })
    };
    let names = match &settings.weights.map {
        Some(given) => given.clone(),
        None => match find(model, &settings.weights.selection, &sites) {
            Naming::Found(names) => names,
            Naming::Ambiguous(maps) => {
                let rules = maps.iter().flat_map(NameMap::rules);
                let options: Vec<_> = rules.map(|rule| format!("--map '{rule}'")).collect();
                return refuse(format!(
                    "its names fit the checkpoint under more than one prefix; say which: {}",
                    options.join(" or ")
                ));
            }
            Naming::Unknown => NameMap::default(),
        },
    };
    let selection = &settings.weights.selection;
    let is_known = |name: &String| model.shape(&names.apply(name)).is_some();
    let mut counted = sites.iter().map(|site| &site.name);
    // Modules that the checkpoint does not have are not solved. If it has none of them, the state
    // belongs to another checkpoint.
    if let Some(unknown) = counted.find(|name| !selection.excludes(name))
        && !sites.iter().any(|site| is_known(&site.name))
    {
        return refuse(format!(
            "'{unknown}' names no weight of the checkpoint; --map PATTERN=REPLACEMENT says what it \
             is called there, --exclude '{unknown}' ignores it"
        ));
    }
    if model.serving_is_known(&record.recording.named_by(names.clone())) {
        return Ok(names);
    }
    refuse(
        "its names are not the checkpoint's, and neither config.json nor a shard said which class \
         serves the model: gather it anew with the metadata qera.class"
            .into(),
    )
}

/// Checks that a state keeps the names that it began with.
///
/// # Errors
/// [`Fatal::StateRefused`] where `--map` gives others.
pub(crate) fn check_map(settings: &Settings, record: &SitesRecord) -> Result<(), Fatal> {
    let (Some(asked), Some(kept)) = (&settings.weights.map, &record.recording.names) else {
        return Ok(());
    };
    if asked == kept {
        return Ok(());
    }
    let rules: Vec<_> = kept
        .rules()
        .iter()
        .map(|rule| format!("'{rule}'"))
        .collect();
    Err(Fatal::StateRefused {
        path: settings.state.clone(),
        reason: match rules.is_empty() {
            true => "was begun without --map: choose another --state".into(),
            false => format!(
                "was begun with --map {}: choose another --state",
                rules.join(" ")
            ),
        },
    })
}
