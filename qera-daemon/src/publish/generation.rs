//! One generation: written aside, synced, renamed in, then `current` points at it.

use std::path::PathBuf;

use crate::disk::{write_json, write_synced};
use crate::error::Fatal;
use crate::publish::manifest::Manifest;
use crate::publish::out_folder::OutFolder;
use crate::publish::{peft, readme};
use crate::settings::Settings;
use crate::solve::site::LayerSolution;
use crate::weights::Weights;

/// Where a generation went.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    /// Its number.
    pub(crate) generation: u64,
    /// Its folder.
    pub(crate) path: PathBuf,
    /// The adapter's rank.
    pub(crate) rank: usize,
}

/// Publishes the solutions, which are sorted by layer, as the next generation.
///
/// # Errors
/// [`Fatal::Io`] with the path; `current` still names the previous generation then.
pub(crate) fn publish(
    out: &OutFolder,
    settings: &Settings,
    weights: &Weights,
    solutions: &[LayerSolution],
    manifest: &Manifest,
    base_model: Option<&str>,
) -> Result<Publication, Fatal> {
    let generation = out.next_generation()?;
    let name = format!("{generation:06}");
    let rank = peft::adapter_rank(solutions);
    let written = write_aside(
        out, settings, weights, solutions, manifest, base_model, generation,
    )
    .inspect_err(|_| out.abandon("generations"))?;
    let path = out.rename_in(&written, "generations", &name)?;
    out.switch_current(&name)?;
    Ok(Publication {
        generation,
        path,
        rank,
    })
}

/// Writes the files of a generation beside the place where it will be renamed to.
fn write_aside(
    out: &OutFolder,
    settings: &Settings,
    weights: &Weights,
    solutions: &[LayerSolution],
    manifest: &Manifest,
    base_model: Option<&str>,
    generation: u64,
) -> Result<PathBuf, Fatal> {
    let aside = out.aside("generations")?;
    peft::write_adapter(&aside, weights.layers(), solutions, base_model)?;
    write_json(&aside.join("qera_manifest.json"), manifest)?;
    let current = out.path.join("current").display().to_string();
    let rank = peft::adapter_rank(solutions);
    let readme = readme::text(
        settings,
        &weights.format(),
        generation,
        &current,
        base_model,
        rank,
        solutions,
    );
    write_synced(&aside.join("README.md"), readme.as_bytes())?;
    Ok(aside)
}
