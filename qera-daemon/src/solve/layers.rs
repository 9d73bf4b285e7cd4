//! The layers of one site: their weights and quantization errors, one in memory at a time.

use qera_core::reconstruct::Method;

use crate::checkpoint::{Checkpoint, Layer, Site};
use crate::error::Stop;
use crate::kernels::{Host, Numbers};
use crate::settings::Settings;

/// A site's layers.
#[derive(Debug, Clone, Copy)]
pub(super) struct SiteLayers<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) settings: &'a Settings,
    pub(super) layers: &'a [Layer],
    pub(super) site: &'a Site,
    pub(super) host: Host<'a>,
}

impl<'a> SiteLayers<'a> {
    pub(super) fn count(&self) -> usize {
        self.site.layers.len()
    }

    pub(super) fn layer(&self, member: usize) -> &'a Layer {
        &self.layers[self.site.layers[member]]
    }

    /// E of this layer, read anew.
    pub(super) fn error(&self, member: usize) -> Result<Numbers<f32>, Stop> {
        self.quantization_error(member, self.layer(member).read_weight(self.checkpoint)?)
    }

    /// E = W - W~, in the memory of W. Exact in f32: W~ is W rounded to fewer bits, or 0, so that the
    /// difference is a multiple of W's last place and no larger than W.
    pub(super) fn quantization_error(
        &self,
        member: usize,
        mut weight: Numbers<f32>,
    ) -> Result<Numbers<f32>, Stop> {
        let (checkpoint, settings) = (self.checkpoint, self.settings);
        let layer = self.layer(member);
        layer.quantize(checkpoint, settings, &mut weight, |weight, quantized| {
            weight.iter_mut().zip(quantized).for_each(|(w, q)| *w -= q);
            Ok(())
        })?;
        Ok(weight)
    }

    pub(super) fn failed(&self, member: usize, reason: String) -> Stop {
        Stop::Solve {
            layer: self.layer(member).name.clone(),
            reason,
        }
    }
}

/// The rank to solve for: none without a correction.
pub(super) const fn rank_of(method: Method, layer: &Layer) -> usize {
    match method {
        Method::WeightOnly => 0,
        _ => layer.rank,
    }
}
