//! The layers of one site: their weights and quantization errors, one in memory at a time.

use qera_core::quantize::GridError;
use qera_core::reconstruct::Method;

use crate::error::Fatal;
use crate::host::compute::Compute;
use crate::host::core_time::{WorkKind, doing};
use crate::host::kernels::page_vec::PageVec;
use crate::host::offload::placement::SolvedWidths;
use crate::host::solve_error::SolveError;
use crate::settings::Settings;
use crate::weights::Weights;
use crate::weights::checkpoint::refuse;
use crate::weights::layers::Layer;
use crate::weights::sites::Site;

/// The layers of a site.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SiteLayers<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) settings: &'a Settings,
    pub(crate) site: &'a Site,
    pub(crate) compute: Compute<'a>,
}

impl<'a> SiteLayers<'a> {
    pub(crate) fn count(&self) -> usize {
        self.site.layers.len()
    }

    pub(crate) fn layer(&self, member: usize) -> &'a Layer {
        &self.weights.layers()[self.site.layers[member]]
    }

    /// What of these layers decides where they are solved; `None` without any.
    pub(crate) fn widths(&self, needs_r: bool) -> Option<SolvedWidths> {
        let outputs = (0..self.count()).map(|member| self.layer(member).out_features);
        Some(SolvedWidths {
            in_features: self.site.in_features,
            out_features: outputs.max()?,
            needs_r,
            rounds: false,
        })
    }

    /// W of this layer, by columns.
    pub(crate) fn original(&self, member: usize) -> Result<PageVec<f32>, Fatal> {
        let layer = self.site.layers[member];
        doing(WorkKind::Quantize, || self.weights.original(layer))
    }

    /// E of this layer; it is read anew each time.
    pub(crate) fn error(&self, member: usize) -> Result<PageVec<f32>, Fatal> {
        self.quantization_error(member, self.original(member)?)
    }

    /// E = W - W~, in the memory of W.
    pub(crate) fn quantization_error(
        &self,
        member: usize,
        weight: PageVec<f32>,
    ) -> Result<PageVec<f32>, Fatal> {
        let layer = self.site.layers[member];
        doing(WorkKind::Quantize, || self.weights.error(layer, weight))
    }

    /// Whether W~ of all these layers exists, or can be made at any time.
    pub(crate) fn are_quantized(&self) -> bool {
        let mut layers = self.site.layers.iter();
        layers.all(|&layer| self.weights.has_quantized(layer))
    }

    /// Whether W~ of one of these layers was rounded under rows of a block.
    pub(crate) fn have_seen(&self, block: u64) -> bool {
        let mut layers = self.site.layers.iter();
        layers.any(|&layer| self.weights.has_seen(layer, block))
    }

    /// The error for a weight that the grid refuses.
    pub(crate) fn refused(&self, member: usize, reason: &GridError) -> Fatal {
        let layer = &self.layer(member).name;
        refuse(
            self.weights.path(),
            format!("tensor '{layer}.weight': {reason}"),
        )
    }

    pub(crate) fn failed(&self, member: usize, reason: SolveError) -> Fatal {
        Fatal::Solve {
            layer: self.layer(member).name.clone(),
            reason: reason.into(),
        }
    }
}

/// The rank to solve for; 0 for a method without correction.
pub(crate) const fn rank_of(method: Method, layer: &Layer) -> usize {
    if method.corrects() { layer.rank } else { 0 }
}
