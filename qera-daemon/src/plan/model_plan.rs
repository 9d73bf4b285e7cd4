//! What a run will do with the model: which class serves it, what it leaves as it is.

use serde::Serialize;

use crate::weights::Weights;
use crate::weights::passed_over::{PassedOverGroup, grouped};

/// The model.
#[derive(Debug, Serialize)]
pub(crate) struct ModelPlan {
    /// Its listed architectures; null where none is listed, and `qera.shares` and `qera.linears`
    /// say everything.
    pub(crate) architecture: Option<String>,
    /// Class of Transformers whose names the adapter will have.
    pub(crate) class: String,
    /// Tensors that are not corrected and might be linear maps.
    pub(crate) passed_over: Vec<PassedOverGroup>,
}

impl ModelPlan {
    /// Of these weights.
    #[must_use]
    pub(crate) fn new(weights: &Weights) -> Self {
        Self {
            architecture: weights.described(),
            class: weights.serving().class.clone(),
            passed_over: grouped(weights.passed_over(), weights.parameters()),
        }
    }

    /// As a person reads it.
    #[must_use]
    pub(crate) fn lines(&self) -> Vec<String> {
        let known = match &self.architecture {
            Some(architecture) => format!("listed as {architecture}"),
            None => "not listed: what shares an input is what qera.shares says".into(),
        };
        let mut lines = vec![format!("model: {known}; served by {}", self.class)];
        let passed_over = self.passed_over.iter();
        lines.extend(passed_over.map(|group| format!("not corrected: {group}")));
        lines
    }
}
