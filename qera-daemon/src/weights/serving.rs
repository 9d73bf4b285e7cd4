//! The class that serves the model, and what it calls a module: the names in the adapter are its.

use crate::settings::dotted::match_start;
use crate::weights::architecture::Architectures;
use crate::weights::checkpoint::Checkpoint;
use crate::weights::recording::Recording;

/// What a model without any word on it is loaded by.
const DEFAULT_CLASS: &str = "AutoModelForCausalLM";
const DEFAULT_TASK: &str = "CAUSAL_LM";
/// What torch.compile, DistributedDataParallel and PEFT put before every name.
const WRAPPERS: [&str; 3] = [COMPILED, "module", "base_model.model"];
/// What torch.compile puts before the names of whatever part of the model it was given.
pub(crate) const COMPILED: &str = "_orig_mod";

/// The class.
#[derive(Debug, Clone)]
pub(crate) struct ServingClass {
    /// Of Transformers.
    pub(crate) class: String,
    /// As PEFT calls it; none where it has no word for what the class does.
    pub(crate) task_type: Option<String>,
    names: Names,
}

/// Whose names the class has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// Those of the recorded model, which is of that class.
    Recorded,
    /// The listed architecture's; `headed` says whether the checkpoint was saved by a class that
    /// puts a prefix before the base class's names.
    Listed { headed: bool },
    /// Those of the checkpoint, which that class saved.
    Checkpoint,
}

impl ServingClass {
    /// The recorded class where a shard names it, else the listed architecture's, else the one that
    /// saved the checkpoint.
    #[must_use]
    pub(crate) fn of(
        checkpoint: &Checkpoint,
        architectures: &Architectures,
        recording: &Recording,
    ) -> Self {
        let listed = architectures.serving();
        if let Some(class) = &recording.class {
            let task = recording.task_type.clone();
            let known = || task_of(class, listed.map(|of| of.task_type));
            return Self {
                class: class.clone(),
                task_type: task.or_else(|| known().map(str::to_owned)),
                names: Names::Recorded,
            };
        }
        let asked = recording.task_type.clone();
        if let Some(serving) = listed {
            let headed = checkpoint
                .tensors
                .keys()
                .any(|name| architectures.has_head_prefix(name));
            return Self {
                class: serving.class.to_owned(),
                task_type: asked.or_else(|| Some(serving.task_type.to_owned())),
                names: Names::Listed { headed },
            };
        }
        let saved_by = checkpoint.config.class();
        let task = saved_by.map_or(Some(DEFAULT_TASK), |class| task_of(class, None));
        Self {
            class: saved_by.unwrap_or(DEFAULT_CLASS).to_owned(),
            task_type: asked.or_else(|| task.map(str::to_owned)),
            names: Names::Checkpoint,
        }
    }

    /// What the class calls a module of the checkpoint; none where it has no such module.
    #[must_use]
    pub(crate) fn name_of(
        &self,
        module: &str,
        architectures: &Architectures,
        recording: &Recording,
    ) -> Option<String> {
        match self.names {
            Names::Recorded => Some(without_wrappers(module, recording)),
            Names::Listed { headed } => architectures.served_name(module, headed),
            Names::Checkpoint => Some(module.to_owned()),
        }
    }
}

/// Whether somebody said whose names the adapter must have, when the recorded ones are not the
/// checkpoint's.
#[must_use]
pub(crate) fn is_known(
    checkpoint: &Checkpoint,
    architectures: &Architectures,
    recording: &Recording,
) -> bool {
    let same = recording.names.as_ref().is_none_or(|names| {
        let rules = names.rules().iter();
        rules.into_iter().all(|rule| rule.strips(&WRAPPERS))
    });
    same || recording.class.is_some()
        || architectures.serving().is_some()
        || checkpoint.config.class().is_some()
}

/// The recorded class's name of a module. What wraps the class has put parts into the recorded
/// names that are not the checkpoint's.
fn without_wrappers(module: &str, recording: &Recording) -> String {
    let recorded = recording.recorded_name(module);
    if recorded == module {
        return recorded;
    }
    let parts = unwrapped(&recorded).split('.');
    let parts = parts.filter(|part| *part != COMPILED);
    parts.collect::<Vec<_>>().join(".")
}

/// A name without what wrappers put before it.
#[must_use]
pub(crate) fn unwrapped(name: &str) -> &str {
    let met = WRAPPERS.iter().find_map(|of| match_start(of, name));
    match met.map(|met| met.rest).filter(|rest| !rest.is_empty()) {
        Some(rest) => unwrapped(rest),
        None => name,
    }
}

/// What a class is for, where its name says so; `listed` is the architecture's task.
fn task_of(class: &str, listed: Option<&'static str>) -> Option<&'static str> {
    if class.ends_with("ForCausalLM") || class.ends_with("LMHeadModel") {
        Some(DEFAULT_TASK)
    } else if class.ends_with("ForConditionalGeneration") {
        listed.filter(|task| *task == "SEQ_2_SEQ_LM")
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
