//! Output layers that are tied to the embedding: their weight is the embedding's tensor under
//! another name. A correction of the head alone would be for a tensor that the served model does
//! not read.
//!
//! A head is corrected only if the checkpoint stores it by itself and its class keeps it so. Equal
//! bytes mean that it is tied, whatever the configuration says (Falcon, MPT): whoever saved it
//! wrote one tensor twice. Unequal bytes mean nothing where `tie_word_embeddings` is true, or is
//! absent and true by default: Transformers then puts the embedding in the place of what is stored.

use core::fmt;
use std::collections::BTreeMap;

use crate::settings::weights::{is_embedding, is_head};
use crate::weights::checkpoint::{Checkpoint, Tensor};
use crate::weights::layers::module_of;

/// Endings of the names of other heads that have an embedding's shape (`get_output_embeddings` in
/// Transformers 4.40).
const HEADS_BY_SHAPE: [&str; 9] = [
    "predictions.decoder",
    "lm_head.decoder",
    "mlm_score.decoder",
    "pred_layer.proj",
    "vocab_projector",
    "lm_loss",
    "generator_lm_head",
    "mlm_head",
    "proj_out",
];

/// How it is known that a layer is tied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tie {
    /// The tensor is equal to this one, byte by byte.
    Bytes(String),
    /// `tie_word_embeddings` says so, in config.json or by the class's default.
    Configured,
}

impl fmt::Display for Tie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(embedding) => write!(
                f,
                "is tied to the embedding and cannot be corrected alone: it has the bytes of '{embedding}'"
            ),
            Self::Configured => f.write_str(
                "is tied to the embedding and cannot be corrected alone: config.json does not say \"tie_word_embeddings\": false, so that the embedding takes its place when the model is loaded",
            ),
        }
    }
}

/// The embeddings of a checkpoint, by their names.
#[derive(Debug)]
pub(crate) struct Embeddings<'a> {
    checkpoint: &'a Checkpoint,
    tensors: BTreeMap<&'a str, &'a Tensor>,
}

impl<'a> Embeddings<'a> {
    /// The embeddings of a checkpoint.
    #[must_use]
    pub(crate) fn of(checkpoint: &'a Checkpoint) -> Self {
        let tensors = checkpoint.tensors.iter();
        let tensors = tensors.filter(|(name, _)| module_of(name).is_some_and(is_embedding));
        Self {
            checkpoint,
            tensors: tensors
                .map(|(name, tensor)| (name.as_str(), tensor))
                .collect(),
        }
    }

    /// Whether a 2-D weight is tied to an embedding. A layer that is `unlisted`, has an embedding's
    /// shape and was asked for by its full name is taken for a head, whatever it is called.
    #[must_use]
    pub(crate) fn tie_of(&self, module: &str, tensor: &Tensor, unlisted: bool) -> Option<Tie> {
        let mut has_shape = false;
        for (name, embedding) in &self.tensors {
            let alike = embedding.shape == tensor.shape && embedding.dtype == tensor.dtype;
            if !alike || module_of(name) == Some(module) {
                continue;
            }
            has_shape = true;
            if self.checkpoint.bytes(embedding) == self.checkpoint.bytes(tensor) {
                return Some(Tie::Bytes((*name).to_owned()));
            }
        }
        let head = is_head(module) || has_shape && (unlisted || may_be_head(module));
        (head && self.checkpoint.config.ties_embeddings()).then_some(Tie::Configured)
    }
}

fn may_be_head(module: &str) -> bool {
    let ends_with = |of: &&str| {
        let before = module.strip_suffix(*of);
        before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    HEADS_BY_SHAPE.iter().any(ends_with)
}
