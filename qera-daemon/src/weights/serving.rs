//! The class that serves the model, whose names the adapter has.

use crate::formats::model_config::ModelConfig;
use crate::settings::dotted::match_start;
use crate::settings::name_map::NameMap;
use crate::weights::architecture::{Architectures, Serving};
use crate::weights::checkpoint::Checkpoint;
use crate::weights::recording::Recording;

/// The class that loads a model of which nothing is known.
const DEFAULT_CLASS: &str = "AutoModelForCausalLM";
const DEFAULT_TASK: &str = "CAUSAL_LM";
const SEQ_TO_SEQ: &str = "SEQ_2_SEQ_LM";
/// The prefixes that torch.compile, DistributedDataParallel, PEFT, FSDP and Lightning put before
/// every name.
const WRAPPERS: [&str; 5] = [
    COMPILED,
    "module",
    "base_model.model",
    "_fsdp_wrapped_module",
    "_forward_module",
];
/// The part that torch.compile puts before the names of whatever it compiled.
pub(crate) const COMPILED: &str = "_orig_mod";

/// The class that serves a model.
#[derive(Debug, Clone)]
pub(crate) struct ServingClass {
    /// The class of Transformers.
    pub(crate) class: String,
    /// The task as PEFT calls it; `None` where PEFT has no word for it.
    pub(crate) task_type: Option<String>,
    /// The automatic class that loads it from the code beside the checkpoint.
    pub(crate) remote_loader: Option<String>,
    names: Names,
}

/// The origin of the class's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// The recorded model's names, since that model is of this class.
    Recorded,
    /// The listed architecture's names. `headed` says whether the checkpoint was saved by a class
    /// that puts a prefix before the base class's names.
    Listed { headed: bool },
    /// The checkpoint's names, since nothing says what else they could be.
    Checkpoint,
}

impl ServingClass {
    /// The recorded class if a shard names it, otherwise the listed architecture's.
    #[must_use]
    pub(crate) fn of(
        checkpoint: &Checkpoint,
        architectures: &Architectures,
        recording: &Recording,
    ) -> Self {
        let config = &checkpoint.config;
        let listed = listed_class(config, architectures);
        let asked = recording.task_type.clone();
        let with = |class: &str, task: Option<&str>, names| Self {
            remote_loader: config.remote_loader(class).map(str::to_owned),
            class: class.to_owned(),
            task_type: asked.or_else(|| task.map(str::to_owned)),
            names,
        };
        let of_checkpoint = match listed {
            Some(_) => {
                let mut names = checkpoint.tensors.keys();
                let headed = names.any(|name| architectures.has_head_prefix(name));
                Names::Listed { headed }
            }
            None => Names::Checkpoint,
        };
        if let Some(class) = &recording.class {
            let task = architectures.serving().map(|of| of.task_type);
            let names = match recording.has_gguf_names() {
                true => of_checkpoint,
                false => Names::Recorded,
            };
            return with(class, task_of(class, task), names);
        }
        let serving = listed.unwrap_or(Serving {
            class: DEFAULT_CLASS,
            task_type: DEFAULT_TASK,
        });
        with(serving.class, Some(serving.task_type), of_checkpoint)
    }

    /// The part of the checkpoint that the class has, where it does not have all of it.
    fn part<'r>(&self, recording: &'r Recording) -> Option<&'r str> {
        let names = recording.names.as_ref();
        names
            .filter(|_| self.names == Names::Recorded)?
            .part(&WRAPPERS)
    }

    /// The class's name for a module of the checkpoint; `None` where it has no such module.
    #[must_use]
    pub(crate) fn name_of(
        &self,
        module: &str,
        architectures: &Architectures,
        recording: &Recording,
    ) -> Option<String> {
        match self.names {
            Names::Recorded => {
                let outside = |part: &str| match_start(part, module).is_none();
                let part = self.part(recording);
                (!part.is_some_and(outside))
                    .then(|| recorded_in_class(module, architectures, recording))
            }
            Names::Listed { headed } => architectures.served_name(module, headed),
            Names::Checkpoint => Some(module.to_owned()),
        }
    }
}

/// Whether it is known whose names the adapter must have, because a shard names the class or the
/// model is listed. A checkpoint of which nothing is known, and which no class loads by its name,
/// has its own names.
#[must_use]
pub(crate) fn is_known(
    checkpoint: &Checkpoint,
    architectures: &Architectures,
    recording: &Recording,
) -> bool {
    let config = &checkpoint.config;
    let same = || {
        let names = recording.names.as_ref();
        let mut rules = names.into_iter().flat_map(NameMap::rules);
        rules.all(|rule| rule.strips(&WRAPPERS))
    };
    recording.class.is_some()
        || listed_class(config, architectures).is_some()
        || (!config.names_a_model() && same())
}

/// The class of a listed architecture, unless the checkpoint is of a class that has only a part of
/// it.
fn listed_class(config: &ModelConfig, architectures: &Architectures) -> Option<Serving> {
    let one_sided = |class: &str| {
        ["EncoderModel", "ForCausalLM", "DecoderModel"]
            .iter()
            .any(|end| class.ends_with(end))
    };
    let two_sided = |serving: &Serving| serving.task_type == SEQ_TO_SEQ;
    architectures
        .serving()
        .filter(|serving| !(two_sided(serving) && config.class().is_some_and(one_sided)))
}

/// The recorded class's name of a module. Wrappers of the class have put parts into the recorded
/// names that the checkpoint does not have; in a listed architecture they are recognised by what
/// they wrap.
fn recorded_in_class(module: &str, architectures: &Architectures, recording: &Recording) -> String {
    let recorded = recording.recorded_name(module);
    if recorded == module {
        return recorded;
    }
    let parts = unwrapped(&recorded).split('.');
    let parts = parts.filter(|part| *part != COMPILED);
    let inner = parts.collect::<Vec<_>>().join(".");
    let starts = core::iter::once(0).chain(inner.match_indices('.').map(|(at, _)| at + 1));
    let mut listed = starts.map(|at| &inner[at..]);
    let listed = listed.find(|name| architectures.serving().is_some() && architectures.lists(name));
    listed.map(str::to_owned).unwrap_or(inner)
}

/// A name without the parts that wrappers put before it.
#[must_use]
pub(crate) fn unwrapped(name: &str) -> &str {
    let met = WRAPPERS.iter().find_map(|of| match_start(of, name));
    match met.map(|met| met.rest).filter(|rest| !rest.is_empty()) {
        Some(rest) => unwrapped(rest),
        None => name,
    }
}

/// The task that a class is for, if its name says so; `listed` is the architecture's task.
fn task_of(class: &str, listed: Option<&'static str>) -> Option<&'static str> {
    if class.ends_with("ForCausalLM") || class.ends_with("LMHeadModel") {
        Some(DEFAULT_TASK)
    } else if class.ends_with("ForConditionalGeneration") {
        listed.filter(|task| *task == SEQ_TO_SEQ)
    } else if class.ends_with("Model") && !class.ends_with("HeadsModel") {
        Some("FEATURE_EXTRACTION")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_tells_its_task_or_nothing() {
        for (class, listed, task) in [
            ("LlamaForCausalLM", None, Some("CAUSAL_LM")),
            ("GPT2LMHeadModel", None, Some("CAUSAL_LM")),
            ("BertModel", None, Some("FEATURE_EXTRACTION")),
            ("BertForMaskedLM", None, None),
            ("GPT2DoubleHeadsModel", None, None),
            (
                "T5ForConditionalGeneration",
                Some("SEQ_2_SEQ_LM"),
                Some("SEQ_2_SEQ_LM"),
            ),
            ("LlavaForConditionalGeneration", None, None),
        ] {
            assert_eq!(task_of(class, listed), task, "{class}");
        }
    }
}
