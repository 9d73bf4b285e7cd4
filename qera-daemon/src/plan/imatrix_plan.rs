//! What an imatrix says of the layers that are planned.

use serde::Serialize;

use crate::calibrate::imatrix::GivenStatistics;

/// What stands in for rows.
#[derive(Debug, Serialize)]
pub(crate) struct ImatrixPlan {
    /// Its files.
    pub(crate) files: Vec<String>,
    /// Layers that have an entry.
    pub(crate) layers: usize,
    /// Layers that have none, and are starved until rows feed them.
    pub(crate) missing: usize,
}

impl ImatrixPlan {
    /// Of what was given.
    #[must_use]
    pub(crate) fn new(given: &GivenStatistics) -> Self {
        let layers = given.layers.iter().filter(|has_entry| **has_entry).count();
        Self {
            files: given.files.iter().map(|of| of.file.clone()).collect(),
            layers,
            missing: given.layers.len() - layers,
        }
    }

    /// For a person.
    pub(crate) fn line(&self) -> String {
        format!(
            "imatrix: E[x^2] of {} layers, {} without an entry ({})",
            self.layers,
            self.missing,
            self.files.join(", ")
        )
    }
}
