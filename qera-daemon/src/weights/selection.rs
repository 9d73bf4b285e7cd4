//! Which tensors of a checkpoint are linear layers, and which of those are corrected.
//!
//! A tensor `NAME.weight` of two dimensions is a linear layer where a shard says so (its key, or
//! `qera.linears`), where a listed architecture gives it the input of a layer that a shard names,
//! where `--include` names it in full, and, for a method that needs no rows, where a listed
//! architecture has it. Everything else stays untouched.

use std::collections::BTreeSet;

use qera_core::dtype::DecodeError;

use crate::error::Fatal;
use crate::formats::safetensors::header::float_dtype;
use crate::settings::dotted::last_part;
use crate::settings::weights::{Wanted, WeightsSettings, is_classifier, is_embedding};
use crate::weights::architecture::Architectures;
use crate::weights::checkpoint::{Checkpoint, Tensor, refuse};
use crate::weights::examination::Examinations;
use crate::weights::layers::{Layer, LayerForm, module_of, tensor_of};
use crate::weights::passed_over::{PassedOver, Why};
use crate::weights::recording::Recording;
use crate::weights::serving::ServingClass;
use crate::weights::tied::Embeddings;

/// Task types for which PEFT treats a model's head as its own.
const CLASSIFYING: [&str; 3] = ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"];
/// Last names of Conv1D layers in the models that use it; some nn.Linear layers have these names,
/// too.
const CONV1D_NAMES: [&str; 4] = ["c_attn", "c_proj", "c_fc", "q_attn"];

/// The selected layers.
#[derive(Debug)]
pub(crate) struct Selected {
    /// The layers, sorted by name.
    pub(crate) layers: Vec<Layer>,
    /// All other tensors of two dimensions or more.
    pub(crate) passed_over: Vec<PassedOver>,
}

/// The rules that decide which tensors are layers.
#[derive(Debug)]
pub(crate) struct Selector<'a> {
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) architectures: &'a Architectures,
    pub(crate) settings: &'a WeightsSettings,
    /// Whether a listed architecture's layer counts only if a shard names it.
    pub(crate) uses_rows: bool,
    pub(crate) recording: &'a Recording,
    pub(crate) serving: &'a ServingClass,
    pub(crate) examinations: &'a Examinations,
}

/// Facts about all tensors that are collected once.
struct KnownInputs<'a> {
    /// The inputs of listed layers that a shard names.
    fed: BTreeSet<String>,
    embeddings: Embeddings<'a>,
}

/// What a tensor is.
enum TensorKind {
    Layer(Layer),
    PassedOver(Why),
}

impl Selector<'_> {
    /// Selects the layers.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] by name: a selected weight with a type other than F32, F16 and BF16,
    /// one that is not 2-D. [`Fatal::Usage`] for an option that names what cannot be had.
    pub(crate) fn select(&self) -> Result<Selected, Fatal> {
        let seen = self.recording.linears.seen();
        let known = KnownInputs {
            fed: seen
                .filter_map(|name| self.architectures.input_of(name))
                .collect(),
            embeddings: Embeddings::of(self.checkpoint),
        };
        let mut layers = Vec::new();
        let mut passed_over = Vec::new();
        for (name, tensor) in &self.checkpoint.tensors {
            if tensor.shape.len() < 2 {
                continue;
            }
            let kind = match module_of(name) {
                Some(module) => self.judge(module, tensor, &known)?,
                None => TensorKind::PassedOver(Why::NoSuffix),
            };
            match kind {
                TensorKind::Layer(layer) => layers.push(layer),
                TensorKind::PassedOver(why) => passed_over.push(PassedOver {
                    tensor: name.clone(),
                    shape: tensor.shape.clone(),
                    why,
                }),
            }
        }
        passed_over.extend(self.missing());
        passed_over.sort_by(|a, b| a.tensor.cmp(&b.tensor));
        // Tensors are sorted with their ".weight", which gives another order.
        layers.sort_by(|a, b| a.name.cmp(&b.name));
        let selected = Selected {
            layers,
            passed_over,
        };
        self.check(&selected)?;
        Ok(selected)
    }

    /// Linear layers of the recorded model that would be corrected, had the checkpoint their
    /// weights. An output layer may be tied to an embedding, and have none.
    fn missing(&self) -> impl Iterator<Item = PassedOver> {
        let linears = &self.recording.linears;
        let missing = linears.described().filter(|module| {
            let is_there = self.checkpoint.tensors.contains_key(&tensor_of(module));
            !is_there && !self.settings.selection.excludes(module)
        });
        missing.filter_map(|module| {
            let of = linears.listed(module)?;
            Some(PassedOver {
                tensor: tensor_of(module),
                shape: vec![of.out_features, of.in_features],
                why: Why::Missing,
            })
        })
    }

    fn judge(
        &self,
        module: &str,
        tensor: &Tensor,
        known: &KnownInputs<'_>,
    ) -> Result<TensorKind, Fatal> {
        let wanted = self.settings.selection.wanted(module);
        match wanted {
            Wanted::Excluded => return Ok(TensorKind::PassedOver(Why::Excluded)),
            Wanted::LeftOutByDefault => return Ok(TensorKind::PassedOver(Why::LeftOutByDefault)),
            Wanted::NotIncluded => return Ok(TensorKind::PassedOver(Why::NotIncluded)),
            Wanted::Named | Wanted::Allowed => {}
        }
        let named = wanted == Wanted::Named;
        if tensor.shape.len() != 2 {
            return match named {
                true => Err(self.not_two_dimensional(module, tensor)),
                false => Ok(TensorKind::PassedOver(Why::NotTwoDimensional)),
            };
        }
        if !named && !self.is_linear(module, &known.fed) {
            return Ok(TensorKind::PassedOver(Why::NotLinear));
        }
        let unlisted = named && !self.architectures.lists(module);
        if let Some(tie) = known.embeddings.tie_of(module, tensor, unlisted) {
            return match named {
                true => Err(Fatal::Usage(format!("--include '{module}': {tie}"))),
                false => Ok(TensorKind::PassedOver(Why::Tied)),
            };
        }
        let Some(transposed) = self.is_transposed(module) else {
            return match named {
                true => Err(Fatal::Usage(format!(
                    "--include '{module}': {}",
                    Why::UnknownOrientation
                ))),
                false => Ok(TensorKind::PassedOver(Why::UnknownOrientation)),
            };
        };
        let served = self
            .serving
            .name_of(module, self.architectures, self.recording);
        let Some(served_as) = served else {
            return Ok(TensorKind::PassedOver(Why::NotServed));
        };
        let form = LayerForm {
            name: module,
            tensor,
            served_as,
            transposed,
        };
        self.whole(form)
    }

    /// A layer whose whole weight can be read.
    fn whole(&self, form: LayerForm<'_>) -> Result<TensorKind, Fatal> {
        let dtype = form.tensor.dtype;
        let skips = self.settings.skip_broken;
        if skips && form.tensor.shape.contains(&0) {
            return Ok(TensorKind::PassedOver(Why::Empty));
        }
        if skips && float_dtype(dtype).is_none() {
            return Ok(TensorKind::PassedOver(Why::UnreadType(dtype)));
        }
        let layer = Layer::describe(self.checkpoint, self.settings, form)?;
        match self.examinations.of(self.checkpoint, &layer).broken {
            None => Ok(TensorKind::Layer(layer)),
            Some(DecodeError::NonFinite { row, column, .. }) if skips => {
                Ok(TensorKind::PassedOver(Why::NotFinite { row, column }))
            }
            Some(error) => Err(layer.broken(self.checkpoint, error)),
        }
    }

    fn is_linear(&self, module: &str, fed: &BTreeSet<String>) -> bool {
        let joined = || {
            let input = self.architectures.input_of(module);
            input.is_some_and(|input| fed.contains(&input))
        };
        let listed = || !self.uses_rows && self.architectures.lists(module);
        self.recording.linears.names(module) || joined() || listed()
    }

    /// Whether the weight is transposed: by the tap, or else by the listed architecture. `None` for
    /// a name that both forms have.
    fn is_transposed(&self, module: &str) -> Option<bool> {
        let listed = self.recording.linears.listed(module);
        listed
            .and_then(|of| of.transposed)
            .or_else(|| self.architectures.is_transposed(module))
            .or_else(|| (!CONV1D_NAMES.contains(&last_part(module))).then_some(false))
    }

    fn not_two_dimensional(&self, module: &str, tensor: &Tensor) -> Fatal {
        refuse(
            self.checkpoint.file_of(tensor),
            format!(
                "tensor '{module}.weight' is selected but has shape {:?}, not [out_features, in_features]",
                tensor.shape
            ),
        )
    }

    /// Refuses what was asked for by name and is impossible.
    fn check(&self, selected: &Selected) -> Result<(), Fatal> {
        let layers = &selected.layers;
        for Layer { name, .. } in layers {
            if is_embedding(name) {
                return Err(Fatal::Usage(format!(
                    "--include '{name}': is an embedding, no linear layer"
                )));
            }
            if is_classifier(name)
                && let Some(task) = self.serving.task_type.as_deref()
                && CLASSIFYING.contains(&task)
            {
                return Err(Fatal::Usage(format!(
                    "--include '{name}': PEFT saves it whole for the task type {task}, and would \
                     not read its factors"
                )));
            }
        }
        let broken = selected.passed_over.iter().filter(|of| of.why.is_broken());
        let broken = broken.filter_map(|of| module_of(&of.tensor));
        let layers = layers.iter().map(|layer| layer.name.as_str());
        let names: Vec<&str> = layers.chain(broken).collect();
        for glob in &self.settings.selection.include {
            if !names.iter().any(|name| glob.is_match(name)) {
                self.explain(glob)?;
            }
        }
        if self.recording.linears.is_empty() {
            return Ok(());
        }
        if let Some(glob) = self.settings.ranks.unmatched(&names) {
            return Err(Fatal::Usage(format!(
                "--rank-for '{glob}': matches no selected layer"
            )));
        }
        Ok(())
    }

    /// Explains why an `--include` selects nothing.
    fn explain(&self, glob: &globset::GlobMatcher) -> Result<(), Fatal> {
        let modules = self.checkpoint.tensors.keys();
        let mut met = modules
            .filter_map(|tensor| module_of(tensor))
            .filter(|module| glob.is_match(module));
        let (pattern, path) = (glob.glob(), self.checkpoint.path.display());
        let said = |what: String| Err(Fatal::Usage(format!("--include '{pattern}': {what}")));
        let Some(first) = met.next() else {
            return said(format!("matches no weight of {path}"));
        };
        let left_out =
            |module: &&str| self.settings.selection.wanted(module) == Wanted::LeftOutByDefault;
        if let Some(module) = core::iter::once(first).chain(met).find(left_out) {
            return said(format!(
                "'{module}' is left out by default, name it in full"
            ));
        }
        // It is not known what shards will name before there are any.
        if self.recording.linears.is_empty() {
            return Ok(());
        }
        let shape = self.checkpoint.tensors.get(&tensor_of(first));
        said(format!(
            "matches nothing that is known to be a linear layer ('{first}' first, shape {:?}): \
             no shard has its key, and qera.linears does not list it; one named in full is taken \
             for one",
            shape.map(|tensor| &tensor.shape[..]).unwrap_or_default()
        ))
    }
}
