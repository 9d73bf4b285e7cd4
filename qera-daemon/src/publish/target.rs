//! The target of publications: the locked output folder, and what is known of its current
//! generation.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::calibrate::imatrix::GivenStatistics;
use crate::error::Fatal;
use crate::judge::progress::LayerSummary;
use crate::observe::run_events::GenerationRejected;
use crate::publish::base::Base;
use crate::publish::bases::{Bases, BasesWritten};
use crate::publish::belonging::refuse_other_rounded;
use crate::publish::check::HeldAgainst;
use crate::publish::companions::Companions;
use crate::publish::current::{Current, CurrentInputs, current};
use crate::publish::forms::AdapterForms;
use crate::publish::generation::{Generation, PublishOutcome};
use crate::publish::generation_files::{DamagedFile, damaged_files};
use crate::publish::layers::PublishedLayers;
use crate::publish::manifest::{Fingerprints, Inputs, Manifest, WrittenBeside};
use crate::publish::notify::memory::NotifiedMemory;
use crate::publish::out_folder::{OutFolder, Pruned};
use crate::publish::rounded_base::RoundedBase;
use crate::settings::Settings;
use crate::settings::notify::NotifiedServer;
use crate::solve::solution::LayerOutcome;
use crate::weights::Weights;

/// The output folder, and the fingerprints of what is published in it.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    /// The folder, locked.
    pub(crate) out: OutFolder,
    /// The memory of what servers were told of its generations.
    pub(crate) notified: Arc<NotifiedMemory>,
    settings: &'a Settings,
    weights: Arc<Weights>,
    /// The base, where one is there or asked for. Some of it is unknown until W~ is made.
    base: Option<Base>,
    bases: Bases,
    companions: Companions,
    /// The forms in which the adapter is written.
    pub(crate) forms: AdapterForms,
    fingerprints: Fingerprints,
    /// Identity of the state that is solved from; `None` where only an imatrix is.
    state: Option<String>,
    /// The generation that was current when the folder was opened, if its manifest could be read.
    found: Option<Current>,
    /// Which files of that generation are damaged.
    damage: Option<DamagedGeneration>,
    /// Digest of the shards of the current generation, if it has these fingerprints and was solved
    /// cold from all of them.
    drained: Option<String>,
}

/// A generation with files that are not as they were written.
#[derive(Debug)]
pub(crate) struct DamagedGeneration {
    /// The generation's number.
    pub(crate) number: u64,
    /// The damaged files.
    pub(crate) files: Vec<DamagedFile>,
}

impl DamagedGeneration {
    /// The folder's current generation, if it is damaged.
    fn current(out: &OutFolder) -> Result<Option<Self>, Fatal> {
        let Some(number) = out.current_generation()? else {
            return Ok(None);
        };
        let files = damaged_files(&out.path.join("current"), number)?;
        Ok((!files.is_empty()).then_some(Self { number, files }))
    }
}

/// The result of a publication.
#[derive(Debug)]
pub(crate) struct PublishReport {
    /// The bases that were written before the generation.
    pub(crate) bases: BasesWritten,
    /// Whether the generation was published.
    pub(crate) outcome: PublishOutcome,
    /// Why a generation beyond `--keep-generations` is not removed. The next publication tries it
    /// again.
    pub(crate) unpruned: Option<Fatal>,
}

/// A place in a journal.
#[derive(Debug)]
pub(crate) struct Position {
    /// Number of the last shard that counted.
    pub(crate) number: u64,
    /// Digest of the shards up to it.
    pub(crate) digest: String,
}

impl<'a> Target<'a> {
    /// Opens the folder for these layers, and refuses one whose base belongs to others. Where W~ is
    /// not made yet, only the first publication can tell whether an existing base holds it.
    ///
    /// # Errors
    /// [`Fatal::StateRefused`], [`Fatal::Io`].
    pub(crate) fn open(
        out: OutFolder,
        settings: &'a Settings,
        weights: Arc<Weights>,
        state: Option<String>,
    ) -> Result<Self, Fatal> {
        let fingerprint = weights.fingerprint().to_owned();
        let bases = Bases::of(&out, &settings.publish, &weights)?;
        let forms = AdapterForms::of(&settings.publish, &weights)?;
        // Only a run that has or wants a base has to hash the whole checkpoint.
        let base = || Base::new(&weights, &settings.rounding, &fingerprint);
        let base = (!bases.is_empty()).then(base);
        let companions = Companions::new(settings, weights.path(), weights.folder())?;
        let fingerprints = Fingerprints::new(settings, &weights, fingerprint);
        let servers = &settings.publish.notify.servers;
        let keys = servers.iter().map(NotifiedServer::key);
        let notified = Arc::new(NotifiedMemory::open(&out.path, keys)?);
        let mut target = Self {
            out,
            notified,
            settings,
            base,
            bases,
            companions,
            forms,
            fingerprints,
            weights,
            state,
            found: None,
            damage: None,
            drained: None,
        };
        target.identify_base()?;
        target.found = current(&target.out)?;
        target.damage = DamagedGeneration::current(&target.out)?;
        let bases = &mut target.bases;
        bases.restore(&target.out, &target.weights, &target.companions)?;
        if let Some(found) = &target.found {
            bases.check_files(&target.out, &found.bases)?;
        }
        if target.bases.need_companions() {
            target.companions.find()?;
        }
        target.drained = target.read_current();
        Ok(target)
    }

    /// Notes which imatrix stands in for rows.
    pub(crate) fn take_imatrix(&mut self, given: Option<&GivenStatistics>) {
        self.fingerprints.imatrix = given.map(GivenStatistics::fingerprint);
        self.drained = self.read_current();
    }

    /// Notes which base it is, once that is known, and refuses a folder that holds another one.
    fn identify_base(&mut self) -> Result<(), Fatal> {
        let Some(base) = &mut self.base else {
            return Ok(());
        };
        base.rounded = RoundedBase::new(&self.weights, &self.settings.rounding);
        let found = self.bases.look(&self.out, base)?;
        if !base.is_made() {
            // This is checked before anything is rounded, since rounding would make another W~ than
            // that base's.
            return match self.bases.first_present() {
                Some(form) => Err(Fatal::StateRefused {
                    path: self.out.path.join(form.folder()),
                    reason: "holds a W~ that is not kept with these statistics: choose another \
                             --out, or go on with the state that made it"
                        .into(),
                }),
                None => Ok(()),
            };
        }
        refuse_other_rounded(&self.out, base.digest())?;
        if let Some(found) = found {
            *base = found;
        }
        self.fingerprints.base = Some(base.fingerprint());
        self.fingerprints.rounded = base.digest().map(str::to_owned);
        Ok(())
    }

    /// Refuses to publish an adapter whose W~ is nowhere to be had.
    fn without_base(&self) -> Result<PublishReport, Fatal> {
        let layers = self.weights.layers().iter().enumerate();
        let unmade = layers.filter(|(layer, _)| self.weights.rounding_of(*layer).is_none());
        let problem =
            |name: &str| format!("{name}: it is not rounded yet, and so there is no base");
        self.rejected(unmade.map(|(_, layer)| problem(&layer.name)).collect())
    }

    /// Refuses to publish an adapter for a given file that has changed: what is served is not what
    /// was read.
    fn on_another_file(&self, file: &Path) -> Result<PublishReport, Fatal> {
        self.rejected(vec![format!(
            "{}: is another file than the one that was opened, or was written to: start anew",
            file.display()
        )])
    }

    fn rejected(&self, problems: Vec<String>) -> Result<PublishReport, Fatal> {
        Ok(PublishReport {
            bases: BasesWritten::default(),
            outcome: PublishOutcome::Rejected(GenerationRejected {
                generation: self.out.next_generation()?,
                problems,
                more: 0,
            }),
            unpruned: None,
        })
    }

    /// Writes the bases that are asked for and are not there.
    fn write_bases(&mut self, layers: &PublishedLayers<'_>) -> Result<BasesWritten, Fatal> {
        match &self.base {
            Some(base) => self.bases.write(&self.out, layers, base, &self.companions),
            None => Ok(BasesWritten::default()),
        }
    }

    /// Files of the bases that were missing when the folder was opened, and were written again.
    #[must_use]
    pub(crate) fn restored(&self) -> &[PathBuf] {
        self.bases.restored()
    }

    /// Files beside the weights of the bases that are not as they were written.
    #[must_use]
    pub(crate) fn damaged_beside_bases(&self) -> &[DamagedFile] {
        self.bases.damaged()
    }

    /// Which files of the current generation are damaged.
    #[must_use]
    pub(crate) const fn damage(&self) -> Option<&DamagedGeneration> {
        self.damage.as_ref()
    }

    /// Fingerprints of what the next generation belongs to.
    pub(crate) const fn fingerprints(&self) -> &Fingerprints {
        &self.fingerprints
    }

    /// The layers, W and W~.
    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// A fingerprint of the checkpoint and the settings that corrections and evidence belong to.
    #[must_use]
    pub(crate) fn solved_for(&self) -> String {
        let Fingerprints {
            checkpoint,
            settings,
            quantized,
            ..
        } = &self.fingerprints;
        let quantized = quantized.as_deref().unwrap_or_default();
        let identity = self.weights.identity();
        format!("{checkpoint} {settings} {identity}{quantized}")
    }

    /// Digest of the shards of the current generation, if it was solved cold from all of them for
    /// this checkpoint and these settings.
    #[must_use]
    pub(crate) fn drained(&self) -> Option<String> {
        self.drained.clone()
    }

    /// The layers that the current generation corrects by this imatrix.
    #[must_use]
    pub(crate) fn stood_in(&self) -> BTreeSet<String> {
        let own = self.fingerprints.imatrix.as_ref();
        let is_own = |current: &&Current| current.fingerprints.imatrix.as_ref() == own;
        let found = self.found.as_ref();
        let found = found.filter(|current| own.is_some() && is_own(current));
        let layers = found.into_iter().flat_map(|current| &current.layers);
        let by_imatrix = layers.filter(|layer| layer.statistic.is_some());
        by_imatrix.map(|layer| layer.name.clone()).collect()
    }

    /// The journal's position and digest at which the current generation was solved.
    #[must_use]
    pub(crate) fn position(&self) -> Option<Position> {
        let CurrentInputs {
            journal_position: number,
            journal_digest: digest,
            ..
        } = &self.found.as_ref()?.inputs;
        Some(Position {
            number: *number,
            digest: digest.clone(),
        })
    }

    fn read_current(&self) -> Option<String> {
        let current = self.found.as_ref().filter(|_| self.damage.is_none())?;
        let same = current.inputs.drained && current.fingerprints == self.fingerprints;
        let written = current.is_written_as(&self.settings.publish, &self.forms);
        let digest = || current.inputs.journal_digest.clone();
        (same && written && !self.bases.are_missing()).then(digest)
    }

    /// Writes the bases that are asked for and missing, then the generation, then removes
    /// generations beyond `--keep-generations`. If the generation does not pass its check,
    /// everything stays as it was.
    ///
    /// # Errors
    /// [`Fatal::Io`]; `current` still names the previous generation then.
    pub(crate) fn publish(
        &mut self,
        outcomes: &[LayerOutcome<'_>],
        progress: &[LayerSummary],
        inputs: Inputs,
    ) -> Result<PublishReport, Fatal> {
        let is_made = |of: &Self| of.base.as_ref().is_none_or(Base::is_made);
        if !is_made(self) {
            // W~ may have been made since the folder was opened.
            self.identify_base()?;
            if !is_made(self) {
                return self.without_base();
            }
        }
        let weights = Arc::clone(&self.weights);
        let given = weights.given();
        if let Some(file) = given.and_then(|of| of.given.changed()) {
            return self.on_another_file(file);
        }
        let layers = PublishedLayers {
            settings: self.settings,
            weights: &weights,
            outcomes,
            progress,
        };
        let bases = self.write_bases(&layers)?;
        // Without a base in the folder the quantized weights are elsewhere, and the full-precision
        // folder would be wrong. A folder that was given is what an engine serves.
        let base = self.bases.served(&self.out);
        let as_numbers = self.bases.as_numbers(&self.out);
        let served = given.and_then(|of| of.given.folder());
        let base_model = base.clone().or(served);
        let files = self.bases.files(&self.out)?;
        let drained = inputs.drained.then(|| inputs.journal_digest.clone());
        let fingerprints = self.fingerprints.clone();
        let written = WrittenBeside {
            forms: &self.forms,
            bases: self.bases.records(),
        };
        let generation = Generation {
            layers,
            forms: &self.forms,
            manifest: Manifest::new(&layers, inputs, fingerprints, written),
            state: self.state.as_deref(),
            bases: files,
            base_model: base_model.as_ref().map(|path| path.display().to_string()),
            as_numbers: as_numbers.map(|path| path.display().to_string()),
        };
        let against = match &base {
            Some(base) => HeldAgainst::Own(base),
            None => HeldAgainst::Run(&weights),
        };
        let outcome = generation.publish(&self.out, against)?;
        let mut unpruned = None;
        if matches!(outcome, PublishOutcome::Published(_)) {
            self.drained = drained;
            self.damage = None;
            let pruned = Pruned {
                state: self.state.as_deref(),
                held: self.notified.held(),
            };
            let keep = self.settings.publish.keep_generations;
            unpruned = self.out.prune(keep, &pruned).err();
        }
        Ok(PublishReport {
            bases,
            outcome,
            unpruned,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::presence::exists;
    use crate::publish::check::served_model::ServedModel;
    use crate::publish::sample::{DIGESTED, digest as digest_of};
    use crate::settings::options::Options;
    use crate::weights::opening::Model;
    use crate::weights::recording::Recording;
    use safetensors::Dtype;
    use safetensors::tensor::{TensorView, serialize_to_file};
    use serde_json::Value;
    use std::path::PathBuf;

    /// A folder with a checkpoint of one layer, and what is run on it.
    struct OneLayer {
        folder: PathBuf,
        settings: Settings,
    }

    impl OneLayer {
        fn new(name: &str, options: Options) -> Self {
            let name = format!("qera-target-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            let path = folder.join("model.safetensors");
            let values = [1.0_f32, 0.3, -0.7, 0.0, 8.0, -8.0, 5.0, 2.5];
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let view = TensorView::new(Dtype::F32, vec![2, 4], &bytes).unwrap();
            serialize_to_file([("a.linear.weight", view)], None, &path).unwrap();
            let settings = Settings::resolve(&Options {
                checkpoint: Some(path),
                out: Some(folder.join("out")),
                quantizer: Some("mxint2".into()),
                block_size: Some(4),
                ..options
            });
            Self {
                folder,
                settings: settings.unwrap(),
            }
        }

        /// The layer's weights; W~ is in memory if it is made.
        fn weights(&self) -> Arc<Weights> {
            let mut recording = Recording::default();
            recording.linears.see("a.linear".into());
            let model = Model::open(&self.settings).unwrap().unwrap();
            let weights = model.select(&self.settings, &recording).unwrap();
            weights.keep_rounded_in_memory();
            Arc::new(weights)
        }

        fn open(&self, weights: &Arc<Weights>) -> Result<Target<'_>, Fatal> {
            let out = OutFolder::open(&self.folder.join("out"))?;
            Target::open(out, &self.settings, Arc::clone(weights), None)
        }

        fn record(&self) -> Value {
            let path = self.folder.join("out/base/qera_base.json");
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
        }
    }

    impl Drop for OneLayer {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    fn projected() -> Options {
        Options {
            rounding: Some("projected".into()),
            ..Options::defaults()
        }
    }

    fn publish(target: &mut Target<'_>, position: u64) -> PublishOutcome {
        let inputs = Inputs {
            journal_position: position,
            drained: true,
            ..Inputs::default()
        };
        let starved = [LayerOutcome::Starved];
        let report = target.publish(&starved, &[LayerSummary::default()], inputs);
        report.unwrap().outcome
    }

    #[test]
    fn the_base_is_known_when_all_of_w_is_made() {
        let run = OneLayer::new("known", projected());
        let weights = run.weights();
        let mut target = run.open(&weights).unwrap();
        assert_eq!(target.fingerprints.base, None);
        assert!(!exists(&run.folder.join("out/base")).unwrap());
        weights.freeze_as_nearest([0], 3).unwrap();
        publish(&mut target, 3);
        let digest = weights.frozen_digest().unwrap();
        assert_eq!(weights.rounding_of(0).unwrap().journal_position, 3);
        assert_eq!(target.fingerprints.rounded.as_ref(), Some(&digest));
        let record = run.record();
        assert_eq!(record["rounded"]["digest"], digest.as_str());
        assert_eq!(record["rounded"]["ranks"], serde_json::json!([0]));
        assert_eq!(record["version"], 3);
        let written = ServedModel::open(&run.folder.join("out/base")).unwrap();
        let rows = written.sample("a.linear", false, DIGESTED).unwrap();
        assert_eq!(record["samples"]["a.linear"], digest_of(&rows.values));
        let base = target.fingerprints.base.clone();
        assert!(base.is_some());
        drop(target);
        // The next run finds the folder as it was.
        let target = run.open(&weights).unwrap();
        assert!(!target.bases.are_missing());
        assert_eq!(target.fingerprints.base, base);
    }

    #[test]
    fn another_w_is_refused_before_the_generation_is() {
        let run = OneLayer::new("other", projected());
        let weights = run.weights();
        weights.freeze_as_nearest([0], 3).unwrap();
        publish(&mut run.open(&weights).unwrap(), 3);
        let path = run.folder.join("out/base/qera_base.json");
        let mut record = run.record();
        record["rounded"]["digest"] = "blake3:0".into();
        std::fs::write(&path, record.to_string()).unwrap();
        // This is refused before anything is rounded beside the base.
        let weights = run.weights();
        let said = run.open(&weights).unwrap_err().to_string();
        assert!(said.contains("a W~ that is not kept with"), "{said}");
        // It is refused even for the same weights, because the record says that they differ.
        weights.freeze_as_nearest([0], 3).unwrap();
        let said = run.open(&weights).unwrap_err().to_string();
        assert!(said.contains("holds another W~ (blake3:0, this"), "{said}");
        assert!(
            said.contains("or solve from the state that made it"),
            "{said}"
        );
    }

    #[test]
    fn no_adapter_goes_out_without_its_base() {
        let run = OneLayer::new("without", projected());
        let mut recording = Recording::default();
        recording.linears.see("a.linear".into());
        let model = Model::open(&run.settings).unwrap().unwrap();
        // Nobody said where W~ is kept.
        let weights = Arc::new(model.select(&run.settings, &recording).unwrap());
        let mut target = run.open(&weights).unwrap();
        let PublishOutcome::Rejected(rejected) = publish(&mut target, 3) else {
            panic!("{target:?}");
        };
        assert_eq!(
            rejected.problems,
            ["a.linear: it is not rounded yet, and so there is no base"]
        );
        assert!(!exists(&run.folder.join("out/base")).unwrap());
        assert!(!exists(Path::new(&run.folder.join("out/current"))).unwrap());
    }

    #[test]
    fn a_nearest_base_is_known_at_once() {
        let options = Options {
            emit_base: Some("true".into()),
            ..Options::defaults()
        };
        let run = OneLayer::new("nearest", options);
        let weights = run.weights();
        let mut target = run.open(&weights).unwrap();
        let base = target.fingerprints.base.clone();
        assert!(base.is_some());
        publish(&mut target, 3);
        assert_eq!(target.fingerprints.base, base);
        assert_eq!(target.fingerprints.rounded, None);
        let record = run.record();
        assert_eq!(record["version"], 2);
        assert!(record.get("rounded").is_none() && record.get("samples").is_none());
    }
}
