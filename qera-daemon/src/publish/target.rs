//! Where generations go: the output folder, held, and what is known of the generation that is
//! current there.

use std::sync::Arc;

use serde::Deserialize;

use crate::disk::{exists, read};
use crate::error::Fatal;
use crate::judge::progress::LayerSummary;
use crate::publish::base::{Base, emit};
use crate::publish::check::HeldAgainst;
use crate::publish::companions::Companions;
use crate::publish::generation::{Generation, PublishOutcome};
use crate::publish::layers::PublishedLayers;
use crate::publish::manifest::{Fingerprints, Inputs, Manifest};
use crate::publish::out_folder::OutFolder;
use crate::settings::Settings;
use crate::settings::weight_format::WeightFormat;
use crate::settings::weights::WeightsSettings;
use crate::solve::solution::LayerOutcome;
use crate::weights::{Model, Weights};

/// The output folder and the fingerprints of what goes there.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    /// The folder.
    pub(crate) out: OutFolder,
    settings: &'a Settings,
    weights: Arc<Weights>,
    /// Set where a base is there or asked for.
    base: Option<Base>,
    base_present: bool,
    companions: Companions,
    fingerprints: Fingerprints,
    /// Digest of the shards that the current generation is the last word on, for these
    /// fingerprints.
    drained: Option<String>,
}

/// A place in a journal.
#[derive(Debug)]
pub(crate) struct Position {
    /// Number of the last shard that counted.
    pub(crate) number: u64,
    /// Digest of the shards up to it.
    pub(crate) digest: String,
}

/// What is read of the current generation's manifest.
#[derive(Debug, Deserialize)]
pub(crate) struct Current {
    fingerprints: Fingerprints,
    inputs: CurrentInputs,
    /// Of its settings only what W~ is stored in.
    settings: WeightFormat,
}

#[derive(Debug, Deserialize)]
struct CurrentInputs {
    journal_position: u64,
    journal_digest: String,
    drained: bool,
}

impl Current {
    /// Reads it.
    ///
    /// # Errors
    /// What is no manifest about it.
    pub(crate) fn parse(manifest: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(manifest)
    }
}

impl<'a> Target<'a> {
    /// Takes the folder for these layers, and refuses one whose base belongs to others.
    ///
    /// # Errors
    /// [`Fatal::StateRefused`], [`Fatal::Io`].
    pub(crate) fn open(
        out: OutFolder,
        settings: &'a Settings,
        weights: Arc<Weights>,
    ) -> Result<Self, Fatal> {
        let fingerprint = weights.fingerprint().to_owned();
        // Hashing the whole checkpoint is for those who have or want a base.
        let concerned = settings.publish.emit_base || exists(&out.path.join("base"));
        let base = concerned.then(|| Base::new(&weights, &fingerprint));
        let base_present = base.as_ref().map_or(Ok(false), |base| base.present(&out))?;
        let companions = Companions::new(settings, weights.path(), weights.folder());
        if base.is_some() && !base_present {
            companions.find()?;
        }
        let of_base = base.as_ref().map(Base::fingerprint);
        let mut target = Self {
            out,
            settings,
            base,
            base_present,
            companions,
            fingerprints: Fingerprints::new(settings, &weights, fingerprint, of_base),
            weights,
            drained: None,
        };
        target.drained = target.read_current();
        Ok(target)
    }

    /// Identifies the checkpoint and the settings that corrections and evidence belong to.
    #[must_use]
    pub(crate) fn solved_for(&self) -> String {
        let Fingerprints {
            checkpoint,
            settings,
            ..
        } = &self.fingerprints;
        format!("{checkpoint} {settings} {}", self.weights.identity())
    }

    /// Digest of the shards that the current generation is the last word on, for this checkpoint
    /// and these settings.
    #[must_use]
    pub(crate) fn drained(&self) -> Option<String> {
        self.drained.clone()
    }

    /// The journal's position and digest that the current generation was solved at.
    #[must_use]
    pub(crate) fn position(&self) -> Option<Position> {
        let CurrentInputs {
            journal_position: number,
            journal_digest: digest,
            ..
        } = current(&self.out)?.inputs;
        Some(Position { number, digest })
    }

    fn read_current(&self) -> Option<String> {
        let current = current(&self.out)?;
        let same = current.inputs.drained && current.fingerprints == self.fingerprints;
        let base_missing = self.base.is_some() && !self.base_present;
        (same && !base_missing).then_some(current.inputs.journal_digest)
    }

    /// Writes the base where it is asked for and not there, then the generation, then removes
    /// generations beyond `--keep-generations`. A generation that does not pass its check leaves
    /// everything as it was.
    ///
    /// # Errors
    /// [`Fatal::Io`]; `current` still names the previous generation then.
    pub(crate) fn publish(
        &mut self,
        outcomes: &[LayerOutcome<'_>],
        progress: &[LayerSummary],
        inputs: Inputs,
    ) -> Result<PublishOutcome, Fatal> {
        if let Some(base) = self.base.as_ref().filter(|_| !self.base_present) {
            emit(&self.out, &self.weights, base, &self.companions)?;
            self.base_present = true;
        }
        // Without a base the quantized weights are elsewhere, and the full-precision folder would
        // be wrong.
        let base_model = self.base.as_ref().map(|_| self.out.path.join("base"));
        let drained = inputs.drained.then(|| inputs.journal_digest.clone());
        let fingerprints = self.fingerprints.clone();
        let layers = PublishedLayers {
            settings: self.settings,
            weights: &self.weights,
            outcomes,
            progress,
        };
        let generation = Generation {
            layers,
            manifest: Manifest::new(&layers, inputs, fingerprints),
            base_model: base_model.as_ref().map(|path| path.display().to_string()),
        };
        let against = match &base_model {
            Some(base) => HeldAgainst::Folder(base),
            None => HeldAgainst::Run(&self.weights),
        };
        let outcome = generation.publish(&self.out, against)?;
        if matches!(outcome, PublishOutcome::Published(_)) {
            self.drained = drained;
            self.out.prune(self.settings.publish.keep_generations)?;
        }
        Ok(outcome)
    }
}

/// An engine that follows `current` serves it on weights of one quantizer.
///
/// # Errors
/// [`Fatal::StateRefused`] where the current generation is for another.
pub(crate) fn refuse_other_quantizer(
    out: &OutFolder,
    settings: &WeightsSettings,
) -> Result<(), Fatal> {
    let Some(Current {
        settings: found, ..
    }) = current(out)
    else {
        return Ok(());
    };
    let own = WeightFormat::of(settings.quantizer);
    if found == own {
        return Ok(());
    }
    Err(Fatal::StateRefused {
        path: out.path.clone(),
        reason: format!(
            "its current generation corrects {found}, this run uses {own}: choose another --out"
        ),
    })
}

/// What follows `current` serves it on the base of one checkpoint. A generation of a program that
/// did not say which one it was of is not held against this one.
///
/// # Errors
/// [`Fatal::StateRefused`] with both fingerprints, where the current generation is of another and
/// `--new-checkpoint` does not say that this is meant.
pub(crate) fn refuse_other_checkpoint(
    out: &OutFolder,
    settings: &Settings,
    model: Option<&Model>,
) -> Result<(), Fatal> {
    let found = current(out).and_then(|current| current.fingerprints.model);
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

fn current(out: &OutFolder) -> Option<Current> {
    let manifest = read(&out.path.join("current/qera_manifest.json")).ok()?;
    Current::parse(&manifest).ok()
}
