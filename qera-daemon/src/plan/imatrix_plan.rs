//! What an imatrix says about the planned layers.

use serde::Serialize;

use crate::calibrate::imatrix::GivenStatistics;

/// The imatrix that stands in for rows.
#[derive(Debug, Serialize)]
pub(crate) struct ImatrixPlan {
    /// The imatrix files.
    pub(crate) files: Vec<String>,
    /// Number of layers that have an entry.
    pub(crate) layers: usize,
    /// Number of layers that have none, and are starved until rows come.
    pub(crate) missing: usize,
}

impl ImatrixPlan {
    /// The plan for these statistics.
    #[must_use]
    pub(crate) fn new(given: &GivenStatistics) -> Self {
        let layers = given.layers.iter().filter(|has_entry| **has_entry).count();
        Self {
            files: given.files.iter().map(|of| of.file.clone()).collect(),
            layers,
            missing: given.layers.len() - layers,
        }
    }

    /// The line for a person.
    pub(crate) fn line(&self) -> String {
        format!(
            "imatrix: E[x^2] of {} layers, {} without an entry ({})",
            self.layers,
            self.missing,
            self.files.join(", ")
        )
    }
}
