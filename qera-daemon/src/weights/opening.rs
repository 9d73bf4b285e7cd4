//! An opened model: its checkpoint, the given W~ if there is one, and what is known of it by its
//! kind. Its layers are selected once the shards have spoken.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::disk::presence::exists;
use crate::error::Fatal;
use crate::host::cores::Cores;
use crate::settings::Settings;
use crate::settings::gguf_path::is_gguf;
use crate::settings::publish::{AdapterForm, BaseForm};
use crate::weights::Weights;
use crate::weights::architecture::Architectures;
use crate::weights::checkpoint::{Checkpoint, refuse};
use crate::weights::examination::Examinations;
use crate::weights::gguf;
use crate::weights::gguf::layer_names::family_of;
use crate::weights::given::given_layers::GivenLayers;
use crate::weights::given::tensor::SKIP;
use crate::weights::given::{Comparing, Found, GivenModel};
use crate::weights::layers::{module_of, tensor_of};
use crate::weights::mlx::check_kind;
use crate::weights::recording::Recording;
use crate::weights::selection::{Selected, Selector};
use crate::weights::serving::{ServingClass, is_known};

/// The file in a base that qera wrote that says what it was made from.
pub(crate) const BASE_RECORD: &str = "qera_base.json";

/// An opened model, before a shard says which of its tensors are linear layers.
#[derive(Debug)]
pub(crate) struct Model {
    checkpoint: Arc<Checkpoint>,
    /// The W~ that the user gave.
    given: Option<Arc<GivenModel>>,
    architectures: Arc<Architectures>,
    examinations: Examinations,
    names: Vec<String>,
    /// The checkpoint's identity, whichever layers are selected.
    pub(crate) identity: String,
}

impl Model {
    /// Opens what `--checkpoint` names; `None` where it names nothing.
    ///
    /// # Errors
    /// A checkpoint that cannot serve, naming the file, and the tensor where it is one.
    pub(crate) fn open(settings: &Settings) -> Result<Option<Self>, Fatal> {
        let Some(path) = &settings.weights.checkpoint else {
            return Ok(None);
        };
        refuse_bases(path, settings)?;
        let checkpoint = if is_gguf(path)? {
            gguf::checkpoint::open(path)?
        } else {
            Checkpoint::open(path)?
        };
        refuse_foreign(&checkpoint)?;
        refuse_own_base(&checkpoint)?;
        let given = settings.weights.quantized.as_deref();
        let given = given.map(|file| GivenModel::open(file, &checkpoint.config));
        let given = given.transpose()?;
        refuse_forms(&checkpoint, given.as_ref(), settings)?;
        Ok(Some(Self {
            given: given.map(Arc::new),
            architectures: Arc::new(Architectures::of(&checkpoint.config)),
            examinations: Examinations::default(),
            identity: checkpoint.identity(),
            names: checkpoint.model_names(),
            checkpoint: Arc::new(checkpoint),
        }))
    }

    /// Selects the layers that the recording, the listed architecture and the settings name.
    ///
    /// # Errors
    /// A weight that cannot serve, naming file and tensor; a selection that is impossible.
    pub(crate) fn select(
        &self,
        settings: &Settings,
        recording: &Recording,
    ) -> Result<Weights, Fatal> {
        let serving = ServingClass::of(&self.checkpoint, &self.architectures, recording);
        let selector = Selector {
            checkpoint: &self.checkpoint,
            architectures: &self.architectures,
            settings: &settings.weights,
            // As long as shards have named no layer, all of a listed architecture's layers count.
            uses_rows: settings.solve.method.uses_rows() && !recording.linears.is_empty(),
            recording,
            serving: &serving,
            examinations: &self.examinations,
        };
        let mut selected = selector.select()?;
        let given = self.given.as_ref();
        let given = given.map(|given| self.find_given(given, settings, &mut selected));
        let given = given.transpose()?;
        let (of, layers) = (&self.examinations, &selected.layers);
        let layer_fingerprints = layers
            .iter()
            .map(|l| of.fingerprint_of(&self.checkpoint, l));
        let layer_fingerprints = layer_fingerprints.collect();
        Ok(Weights {
            fingerprint: of.fingerprint(&self.checkpoint, layers),
            identity: self.identity.clone(),
            selected,
            checkpoint: Arc::clone(&self.checkpoint),
            architectures: Arc::clone(&self.architectures),
            recording: recording.clone(),
            serving,
            quantizer: settings.weights.quantizer,
            rounding: settings.rounding,
            given,
            frozen: OnceLock::new(),
            layer_fingerprints,
            model_names: self.names.clone(),
        })
    }

    /// Finds the given W~ of the selected layers. Layers that have none are passed over.
    fn find_given(
        &self,
        given: &Arc<GivenModel>,
        settings: &Settings,
        selected: &mut Selected,
    ) -> Result<GivenLayers, Fatal> {
        let cores = Cores::new(settings.compute.threads);
        let comparing = Comparing {
            skip_broken: settings.weights.skip_broken,
            advice: SKIP,
            cores: &cores,
        };
        let (mut layers, mut found) = (Vec::new(), Vec::new());
        for layer in core::mem::take(&mut selected.layers) {
            let examinations = &self.examinations;
            match examinations.given(&self.checkpoint, &layer, given, comparing)? {
                Found::Here(of) => {
                    layers.push(layer);
                    found.push(of);
                }
                Found::LeftOut(why) => selected.passed_over.push(layer.passed_over(why)),
            }
        }
        selected.layers = layers;
        let passed_over = &mut selected.passed_over;
        passed_over.sort_by(|a, b| a.tensor.cmp(&b.tensor));
        let found = GivenLayers {
            given: Arc::clone(given),
            layers: found,
        };
        found.refuse_far()?;
        Ok(found)
    }

    /// The given W~; `None` where W~ is made.
    #[must_use]
    pub(crate) fn given(&self) -> Option<&GivenModel> {
        self.given.as_deref()
    }

    /// What is known about the kind of model.
    #[must_use]
    pub(crate) fn architectures(&self) -> &Architectures {
        &self.architectures
    }

    /// The modules that have a weight, whatever its shape.
    pub(crate) fn modules(&self) -> impl Iterator<Item = &str> {
        let tensors = self.checkpoint.tensors.keys();
        tensors.filter_map(|tensor| module_of(tensor))
    }

    /// The shape of a module's weight.
    #[must_use]
    pub(crate) fn shape(&self, module: &str) -> Option<&[usize]> {
        let tensor = self.checkpoint.tensors.get(&tensor_of(module))?;
        Some(&tensor.shape)
    }

    /// Whether it is known whose names the adapter must have.
    #[must_use]
    pub(crate) fn serving_is_known(&self, recording: &Recording) -> bool {
        is_known(&self.checkpoint, &self.architectures, recording)
    }
}

/// Refuses a base of another kind than the checkpoint: a GGUF does not have all that belongs in a
/// Hugging Face folder, nor the other way round.
fn refuse_bases(path: &Path, settings: &Settings) -> Result<(), Fatal> {
    let of_gguf = is_gguf(path)?;
    let bases = settings.publish.bases.iter();
    let mut other = bases.filter(|form| (**form == BaseForm::Gguf) != of_gguf);
    let Some(form) = other.next() else {
        return Ok(());
    };
    let (name, folder, what) = (form.name(), form.folder(), form.described());
    let path = path.display();
    Err(Fatal::Usage(match of_gguf {
        true => format!(
            "--emit-base={name}: writes OUT/{folder}, {what}, which cannot be made of the GGUF \
             {path}: --emit-base=gguf writes a GGUF of it, or give the model as safetensors"
        ),
        false => format!(
            "--emit-base={name}: writes OUT/{folder}, {what} whose metadata and other tensors are \
             the checkpoint's, and {path} is none: give the model as a GGUF of F32, F16 or BF16, \
             or choose another form"
        ),
    }))
}

/// Refuses a form that has no names for the model's layers, before anything is waited for.
fn refuse_forms(
    checkpoint: &Checkpoint,
    given: Option<&GivenModel>,
    settings: &Settings,
) -> Result<(), Fatal> {
    let parts = checkpoint.config.parts();
    let kinds: Vec<&str> = parts.iter().map(|part| part.model_type).collect();
    let writes = |form| settings.publish.formats.contains(&form);
    let is_named = given.is_some_and(|of| of.architecture().is_some());
    if writes(AdapterForm::Gguf) && !is_named {
        family_of(&kinds).map_err(|e| AdapterForm::Gguf.refused(&e))?;
    }
    if writes(AdapterForm::Mlx) {
        check_kind(&kinds).map_err(|e| AdapterForm::Mlx.refused(&e))?;
    }
    Ok(())
}

/// Refuses weights that qera quantized: the difference to what they were made from is not in them.
fn refuse_own_base(checkpoint: &Checkpoint) -> Result<(), Fatal> {
    if !checkpoint.is_gguf && exists(&checkpoint.folder().join(BASE_RECORD))? {
        return Err(refuse(
            &checkpoint.path,
            format!(
                "is a base that qera quantized ({BASE_RECORD} lies there): give the full-precision \
                 model that it was made from"
            ),
        ));
    }
    Ok(())
}

fn refuse_foreign(checkpoint: &Checkpoint) -> Result<(), Fatal> {
    if let Some(place) = checkpoint.config.quantized_by() {
        return Err(refuse(
            &checkpoint.path,
            format!(
                "config.json has a {place}: give the full-precision model, from which --quantizer makes W~"
            ),
        ));
    }
    Ok(())
}
