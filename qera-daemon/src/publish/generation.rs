//! One generation: written beside its place, synced, checked as `verify` checks it, renamed in,
//! then `current` points at it. One that does not pass is removed again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::disk::write_synced;
use crate::error::Fatal;
use crate::observe::bits::BitsPerWeight;
use crate::observe::run_events::GenerationRejected;
use crate::publish::base_files::BaseFiles;
use crate::publish::check::{HeldAgainst, check};
use crate::publish::forms::AdapterForms;
use crate::publish::generation_files::{Digests, GenerationFiles, folder_name};
use crate::publish::gguf_adapter::{Provenance, write_gguf};
use crate::publish::layers::PublishedLayers;
use crate::publish::manifest::Manifest;
use crate::publish::manifest_seal::{MANIFEST, sealed};
use crate::publish::mlx_adapter::write_mlx;
use crate::publish::out_folder::OutFolder;
use crate::publish::peft::write_adapter;
use crate::publish::readme::Readme;
use crate::settings::publish::AdapterForm;

/// A generation that was published.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    /// The generation's number.
    pub(crate) generation: u64,
    /// The generation's folder.
    pub(crate) path: PathBuf,
    /// The adapter's rank.
    pub(crate) rank: usize,
    /// The bits a weight of base and adapter together.
    pub(crate) bits: Option<BitsPerWeight>,
}

/// Whether a generation was published.
#[derive(Debug)]
pub(crate) enum PublishOutcome {
    /// The generation is the current one.
    Published(Publication),
    /// The generation's files did not pass the check and were removed; `current` still names the
    /// one before.
    Rejected(GenerationRejected),
}

/// The manifest as it is written. What is known of the files beside it comes last.
#[derive(Serialize)]
struct WrittenManifest<'a> {
    #[serde(flatten)]
    manifest: &'a Manifest,
    generation: u64,
    state: Option<&'a str>,
    bases: &'a BTreeMap<&'static str, BaseFiles>,
    files: &'a Digests,
}

/// What a generation is made from.
#[derive(Debug)]
pub(crate) struct Generation<'a> {
    /// Every selected layer, with its outcome.
    pub(crate) layers: PublishedLayers<'a>,
    /// The forms in which the adapter is written.
    pub(crate) forms: &'a AdapterForms,
    /// The manifest.
    pub(crate) manifest: Manifest,
    /// Identity of the state that it was solved from.
    pub(crate) state: Option<&'a str>,
    /// What the files of the bases hold, by the bases' folders.
    pub(crate) bases: BTreeMap<&'static str, BaseFiles>,
    /// Folder of the model that the adapter belongs on, where that is on this machine.
    pub(crate) base_model: Option<String>,
    /// Folder of the same model with W~ as numbers, where that is on this machine.
    pub(crate) as_numbers: Option<String>,
}

impl Generation<'_> {
    /// Publishes this as the next generation, if its files pass the check against the model that
    /// they are served on.
    ///
    /// # Errors
    /// [`Fatal::Io`] with the path; `current` still names the previous generation then.
    pub(crate) fn publish(
        &self,
        out: &OutFolder,
        against: HeldAgainst<'_>,
    ) -> Result<PublishOutcome, Fatal> {
        let generation = out.next_generation()?;
        let name = folder_name(generation);
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

    /// Writes the generation's files into a folder.
    fn write(&self, out: &OutFolder, generation: u64, folder: &Path) -> Result<(), Fatal> {
        let base_model = self.base_model.as_deref();
        let mut files = GenerationFiles::in_folder(folder);
        if self.forms.all.contains(&AdapterForm::Peft) {
            write_adapter(&mut files, &self.layers, base_model)?;
        }
        if let Some(names) = &self.forms.gguf {
            let provenance = Provenance {
                generation,
                fingerprints: &self.manifest.fingerprints,
            };
            write_gguf(&mut files, &self.layers, names, provenance)?;
        }
        if let Some(names) = &self.forms.mlx {
            write_mlx(&mut files, &self.layers, names)?;
        }
        let own = out.generation(generation);
        let readme = Readme {
            generation,
            own_folder: &own.display().to_string(),
            folder: &out.path.join("current").display().to_string(),
            base_model,
            as_numbers: self.as_numbers.as_deref(),
            layers: self.layers,
        };
        files.write("README.md", readme.text().as_bytes())?;
        // The manifest comes last, because it says what the other files hold.
        let manifest = WrittenManifest {
            manifest: &self.manifest,
            generation,
            state: self.state,
            bases: &self.bases,
            files: files.digests(),
        };
        let path = folder.join(MANIFEST);
        let bytes = sealed(&manifest).map_err(|e| Fatal::io(&path, "write")(e.into()))?;
        write_synced(&path, &bytes)
    }
}
