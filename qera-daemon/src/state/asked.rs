//! Whether a run may go on with a state, or be solved from it.

use std::path::Path;

use crate::error::Fatal;
use crate::settings::statistics::Statistics;
use crate::state::{SitesRecord, SolvedModel};
use crate::weights::Weights;
use crate::weights::sites::{Site, SiteRecord, Sites};
use crate::weights::sketched::SiteSketch;

/// Checks that corrections and evidence of a state belong to this checkpoint. A state that has
/// statistics alone takes any checkpoint.
///
/// # Errors
/// [`Fatal::StateRefused`] with both fingerprints.
pub(crate) fn check_model(
    state: &Path,
    saved: &SitesRecord,
    own: &SolvedModel,
) -> Result<(), Fatal> {
    let saved = &saved.model;
    let sides = [
        ("checkpoint", &saved.checkpoint, &own.checkpoint),
        ("--quantized file", &saved.quantized, &own.quantized),
    ];
    for (what, found, own) in sides {
        if let (Some(found), Some(own)) = (found, own)
            && found != own
        {
            return Err(Fatal::StateRefused {
                path: state.to_path_buf(),
                reason: format!(
                    "belongs to another {what} ({found}, this one is {own}): choose another --state, or say --new-checkpoint to keep its statistics and begin its evidence anew"
                ),
            });
        }
    }
    Ok(())
}

/// Checks that the run has the state's bound for rows held out and kept aside.
///
/// # Errors
/// [`Fatal::StateRefused`] with both bounds.
pub(crate) fn check_window_memory(
    state: &Path,
    saved: &SitesRecord,
    own: u64,
) -> Result<(), Fatal> {
    match saved.window_memory {
        Some(found) if found != own => Err(Fatal::StateRefused {
            path: state.to_path_buf(),
            reason: format!(
                "was begun with --window-memory {found}, this run's is {own}: give it the same, or \
                 choose another --state"
            ),
        }),
        _ => Ok(()),
    }
}

/// What a run expects of a state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// Whether the method needs R or a sketch.
    pub(crate) needs_r: bool,
    /// The statistics that the run was told to gather.
    pub(crate) statistics: Option<Statistics>,
    /// Whether the run will add rows.
    pub(crate) continues: bool,
}

/// Checks that what a state gathers is what the run asks for.
///
/// # Errors
/// [`Fatal::StateRefused`] that says what it gathers, and of which E its sketches are.
pub(crate) fn check_statistics(
    state: &Path,
    saved: &SitesRecord,
    weights: Option<&Weights>,
    asked: Asked,
) -> Result<(), Fatal> {
    let refuse = |reason| {
        Err(Fatal::StateRefused {
            path: state.to_path_buf(),
            reason,
        })
    };
    let gathers = match &saved.sketch {
        Some(sketch) => Statistics::Sketch { rows: sketch.rows },
        None if saved.second_moment.is_whole() => Statistics::Full,
        None => Statistics::Diagonal,
    };
    // A diagonal method is solved from whatever was gathered, where no row is added.
    let is_sketched = saved.sketch.is_some() && (asked.needs_r || asked.continues);
    let is_another = match asked.statistics {
        Some(own) => own != gathers,
        None => is_sketched,
    };
    if is_another {
        let own = asked
            .statistics
            .map_or("none".into(), |own| own.to_string());
        return refuse(format!(
            "was begun with --statistics {gathers}, this run's is {own}: give it the same, or choose another --state"
        ));
    }
    let (Some(sketch), true) = (&saved.sketch, is_sketched) else {
        return Ok(());
    };
    let Some(weights) = weights else {
        return refuse(
            "has sketches of W - W~: it needs the --checkpoint that it was begun with".into(),
        );
    };
    match sketch.differs_from(weights) {
        None => Ok(()),
        Some(why) => refuse(format!(
            "has sketches of the errors {why}: choose another --state, or `solve` with a --method that does with the diagonal (approx)"
        )),
    }
}

/// Checks that a run on today's sites may be solved from what was saved, or may continue it.
///
/// # Errors
/// [`Fatal::StateRefused`] naming the first site that differs, or that R was not gathered and is
/// asked for.
pub(crate) fn check_sites(
    state: &Path,
    saved: &SitesRecord,
    sites: &Sites,
    asked: Asked,
) -> Result<(), Fatal> {
    let refuse = |reason| {
        Err(Fatal::StateRefused {
            path: state.to_path_buf(),
            reason,
        })
    };
    if asked.needs_r && !saved.second_moment.is_whole() {
        return refuse(
            "was gathered without R, which --method exact needs: choose another --state, or another --method".into(),
        );
    }
    for SiteRecord { key, name, .. } in &saved.sites {
        if asked.continues && sites.saved_as(key, None).is_none() {
            return refuse(format!(
                "holds the statistics of {name}, which is not selected: choose another --state, or select it (`solve` may leave it out)"
            ));
        }
    }
    for site in &sites.sites {
        let is_it = |saved: &&SiteRecord| {
            let found = sites.saved_as(&saved.key, None);
            found.is_some_and(|at| sites.sites[at].key == site.key)
        };
        let known = saved.sites.iter().find(is_it);
        let now = site.in_features;
        match known {
            Some(then) if then.in_features != now => {
                let (name, then) = (&then.name, then.in_features);
                return refuse(format!(
                    "holds statistics of {name} with in_features {then}, the checkpoint's is {now}: choose another --state"
                ));
            }
            None if saved.selected => {
                return refuse(format!(
                    "was begun without {}, whose rows in the shards so far were not counted: choose another --state, or --exclude it",
                    site.name
                ));
            }
            Some(then) => {
                if let Some(reason) = other_sketches(then, site, asked) {
                    return refuse(reason);
                }
            }
            None => {}
        }
    }
    Ok(())
}

/// The sketches that a site lacks, or that would get no rows if rows were added.
fn other_sketches(then: &SiteRecord, site: &Site, asked: Asked) -> Option<String> {
    let now: Vec<String> = site.sketch.iter().flat_map(SiteSketch::names).collect();
    let missing = now.iter().find(|name| !then.sketched.contains(name));
    let left = || then.sketched.iter().find(|name| !now.contains(name));
    match missing {
        Some(name) => Some(format!(
            "was gathered without a sketch of {name}, so that this layer's rows are not in it: choose another --state, or --exclude the layer"
        )),
        None if asked.continues => left().map(|name| {
            format!(
                "holds a sketch of {name}, which is not selected: choose another --state, or select it (`solve` may leave it out)"
            )
        }),
        None => None,
    }
}
