//! What a shard says of itself in its header's metadata.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::formats::model_config::is_identifier;
use crate::source::refusal::Reason;
use crate::source::shard::ShardHeader;
use crate::weights::linears::ListedLinear;

const SHARES: &str = "qera.shares";
const LINEARS: &str = "qera.linears";
const CLASS: &str = "qera.class";
const TASK_TYPE: &str = "qera.task_type";
/// PEFT's names for the tasks that it knows.
const TASK_TYPES: [&str; 6] = [
    "CAUSAL_LM",
    "SEQ_2_SEQ_LM",
    "SEQ_CLS",
    "TOKEN_CLS",
    "QUESTION_ANS",
    "FEATURE_EXTRACTION",
];
/// The number of characters of metadata that a message shows.
const SHOWN: usize = 80;

/// The model that the rows were recorded in.
pub(crate) fn model(header: &ShardHeader) -> Option<&str> {
    header.metadata("qera.model")
}

/// A module that the shard lists as a linear layer.
#[derive(Debug, Deserialize)]
pub(crate) struct NamedLinear {
    /// The module's recorded name.
    pub(crate) name: String,
    /// The module's description.
    #[serde(flatten)]
    pub(crate) linear: ListedLinear,
}

/// The linear layers that the shard lists.
///
/// # Errors
/// The metadata is no such list.
pub(crate) fn linears(header: &ShardHeader) -> Result<Vec<NamedLinear>, Reason> {
    let Some(value) = header.metadata(LINEARS) else {
        return Ok(Vec::new());
    };
    serde_json::from_str(value).map_err(|e| {
        metadata(
            LINEARS,
            value,
            format!("not a list of {{\"name\", \"in\", \"out\", \"transposed\"}}: {e}"),
        )
    })
}

/// The reason to refuse a shard for its list of linear layers.
pub(crate) fn refused_linears(header: &ShardHeader, problem: String) -> Reason {
    let value = header.metadata(LINEARS).unwrap_or_default();
    metadata(LINEARS, value, problem)
}

/// The class of the recorded model. A wrapper's class is left out, because it serves nothing.
///
/// # Errors
/// The text is no name of a class. It is checked because the name is put into commands.
pub(crate) fn class(header: &ShardHeader) -> Result<Option<&str>, Reason> {
    let is_wrapper = |class: &&str| {
        class.starts_with("PeftModel")
            || class.contains("DataParallel")
            || *class == "OptimizedModule"
    };
    let Some(class) = header.metadata(CLASS) else {
        return Ok(None);
    };
    if !is_identifier(class) {
        return Err(metadata(CLASS, class, "no name of a class".into()));
    }
    Ok(Some(class).filter(|class| !is_wrapper(class)))
}

/// The task that the class is for.
///
/// # Errors
/// The value names a task that PEFT does not know.
pub(crate) fn task_type(header: &ShardHeader) -> Result<Option<&str>, Reason> {
    let found = header.metadata(TASK_TYPE);
    match found.filter(|value| !TASK_TYPES.contains(value)) {
        None => Ok(found),
        Some(other) => Err(metadata(
            TASK_TYPE,
            other,
            format!("none of {}", TASK_TYPES.join(", ")),
        )),
    }
}

/// The reason to refuse a shard for its declared groups.
pub(crate) fn refused_shares(header: &ShardHeader, problem: String) -> Reason {
    metadata(SHARES, header.metadata(SHARES).unwrap_or_default(), problem)
}

/// Whether the rows come from the full-precision model, as `qera.source` says.
///
/// # Errors
/// The value is neither of the two.
pub(crate) fn full_precision(header: &ShardHeader) -> Result<Option<bool>, Reason> {
    match header.metadata("qera.source") {
        None => Ok(None),
        Some("full-precision") => Ok(Some(true)),
        Some("quantized") => Ok(Some(false)),
        Some(other) => Err(metadata(
            "qera.source",
            other,
            "neither full-precision nor quantized".into(),
        )),
    }
}

/// The number of ranks of the tensor-parallel engine that the rows come from.
///
/// # Errors
/// The value is no such number.
pub(crate) fn tp_size(header: &ShardHeader) -> Result<u64, Reason> {
    let Some(value) = header.metadata("qera.tp_size") else {
        return Ok(1);
    };
    value.parse().ok().filter(|&size| size > 0).ok_or_else(|| {
        metadata(
            "qera.tp_size",
            value,
            "not a whole number of at least 1".into(),
        )
    })
}

fn metadata(key: &'static str, value: &str, problem: String) -> Reason {
    let shown: String = value.chars().take(SHOWN).collect();
    let more = if shown.len() < value.len() { "..." } else { "" };
    Reason::Metadata {
        key,
        value: shown + more,
        problem,
    }
}

/// The groups of modules that read the same input, as the shard declares.
///
/// # Errors
/// The metadata is no list of lists of names.
pub(crate) fn declared(header: &ShardHeader) -> Result<Vec<BTreeSet<String>>, Reason> {
    let Some(value) = header.metadata(SHARES) else {
        return Ok(Vec::new());
    };
    serde_json::from_str(value)
        .map_err(|e| metadata(SHARES, value, format!("not a list of lists of names: {e}")))
}
