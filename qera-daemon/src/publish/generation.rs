//! One generation: written beside its place, synced, checked as `verify` checks it, renamed in, then
//! `current` points at it. One that does not pass is removed again.

use std::path::{Path, PathBuf};

use crate::disk::{write_json, write_synced};
use crate::error::Fatal;
use crate::observe::bits::BitsPerWeight;
use crate::observe::run_events::GenerationRejected;
use crate::publish::check::{HeldAgainst, check};
use crate::publish::forms::{AdapterForms, GGUF, MLX};
use crate::publish::gguf_adapter::{Provenance, write_gguf};
use crate::publish::layers::PublishedLayers;
use crate::publish::manifest::Manifest;
use crate::publish::mlx_adapter::write_mlx;
use crate::publish::out_folder::OutFolder;
use crate::publish::peft::write_adapter;
use crate::publish::readme::Readme;
use crate::settings::publish::AdapterForm;

/// Where a generation went.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    /// Its number.
    pub(crate) generation: u64,
    /// Its folder.
    pub(crate) path: PathBuf,
    /// The adapter's rank.
    pub(crate) rank: usize,
    /// What base and adapter cost.
    pub(crate) bits: Option<BitsPerWeight>,
}

/// What became of a generation.
#[derive(Debug)]
pub(crate) enum PublishOutcome {
    /// It is the current one.
    Published(Publication),
    /// Its files did not pass the check and are removed; `current` still names the one before.
    Rejected(GenerationRejected),
}

/// What a generation is made of.
#[derive(Debug)]
pub(crate) struct Generation<'a> {
    /// Every selected layer.
    pub(crate) layers: PublishedLayers<'a>,
    /// The forms that it is written in.
    pub(crate) forms: &'a AdapterForms,
    /// What is said of them.
    pub(crate) manifest: Manifest,
    /// Folder of the model that the adapter belongs on, where it is here.
    pub(crate) base_model: Option<String>,
    /// Folder of the same model with W~ as numbers, where it is here.
    pub(crate) as_numbers: Option<String>,
}

impl Generation<'_> {
    /// Publishes it as the next one, if its files pass the check against the model that they are
    /// served on.
    ///
    /// # Errors
    /// [`Fatal::Io`] with the path; `current` still names the previous generation then.
    pub(crate) fn publish(
        &self,
        out: &OutFolder,
        against: HeldAgainst<'_>,
    ) -> Result<PublishOutcome, Fatal> {
        let generation = out.next_generation()?;
        let name = format!("{generation:06}");
        let unfinished = out.begin("generations")?;
        self.write(out, generation, &unfinished)
            .inspect_err(|_| out.abandon("generations"))?;
        let findings = check(&unfinished, against);
        if !findings.holds() {
            out.abandon("generations");
            return Ok(PublishOutcome::Rejected(findings.rejecting(generation)));
        }
        let path = out.rename_in(&unfinished, "generations", &name)?;
        out.switch_current(&name)?;
        Ok(PublishOutcome::Published(Publication {
            generation,
            path,
            rank: self.layers.rank(),
            bits: self.manifest.bits_per_weight.clone(),
        }))
    }

    /// Writes its files into a folder.
    fn write(&self, out: &OutFolder, generation: u64, folder: &Path) -> Result<(), Fatal> {
        let base_model = self.base_model.as_deref();
        if self.forms.all.contains(&AdapterForm::Peft) {
            write_adapter(folder, &self.layers, base_model)?;
        }
        if let Some(names) = &self.forms.gguf {
            let provenance = Provenance {
                generation,
                fingerprints: &self.manifest.fingerprints,
            };
            write_gguf(&folder.join(GGUF), &self.layers, names, provenance)?;
        }
        if let Some(names) = &self.forms.mlx {
            write_mlx(&folder.join(MLX), &self.layers, names)?;
        }
        write_json(&folder.join("qera_manifest.json"), &self.manifest)?;
        let own = out
            .path
            .join("generations")
            .join(format!("{generation:06}"));
        let readme = Readme {
            generation,
            own_folder: &own.display().to_string(),
            folder: &out.path.join("current").display().to_string(),
            base_model,
            as_numbers: self.as_numbers.as_deref(),
            layers: self.layers,
        };
        write_synced(&folder.join("README.md"), readme.text().as_bytes())
    }
}
