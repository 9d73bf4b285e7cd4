//! The given W~ of the selected layers, and what is known of it.

use core::fmt;
use std::sync::Arc;

use crate::error::Fatal;
use crate::formats::packed::scheme::ZeroReading;
use crate::weights::checkpoint::refuse;
use crate::weights::decode_check::DecodeCheck;
use crate::weights::given::GivenModel;
use crate::weights::given::comparison::DECODED;
use crate::weights::given::read_tensor::ReadTensor;
use crate::weights::given::tensor::{GivenTensor, SKIP, broken};

/// W~ of one layer, compared with W.
#[derive(Debug, Clone)]
pub(crate) struct GivenLayer {
    /// W~.
    pub(crate) tensor: GivenTensor,
    /// How much it differs from W.
    pub(crate) check: DecodeCheck,
}

impl GivenLayer {
    /// The tensor as the plan and the manifest describe it.
    #[must_use]
    pub(crate) fn described(&self) -> ReadTensor {
        ReadTensor {
            tensor: self.tensor.name().to_owned(),
            stored_in: self.tensor.stored_in(),
            zero_points: self.tensor.zero_points().map(ZeroReading::name),
            check: self.check,
        }
    }

    /// The difference from W, and the most that the type explains, in words.
    #[must_use]
    pub(crate) fn far(&self) -> String {
        format!(
            "'{}': relative error {:.2e}, {} leaves {:.0e} at most",
            self.tensor.name(),
            self.check.relative_error,
            self.tensor.stored_in(),
            self.tensor.most_left()
        )
    }
}

/// How the zero points of a model are read for which there are two readings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ZeroPoints {
    /// The reading that the model itself states.
    pub(crate) said: ZeroReading,
    /// Number of layers that are nearer to W with that reading.
    pub(crate) as_said: usize,
    /// Number of layers that are nearer to W with the other reading.
    pub(crate) otherwise: usize,
}

impl fmt::Display for ZeroPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (said, other) = (self.said.name(), self.said.other().name());
        match (self.as_said, self.otherwise) {
            (_, 0) => write!(f, "zero points {said}"),
            (0, _) => write!(f, "zero points {other}"),
            (some, others) => write!(
                f,
                "zero points {said} in {some} layers, {other} in {others} layers"
            ),
        }
    }
}

/// W~ of the selected layers.
#[derive(Debug)]
pub(crate) struct GivenLayers {
    /// The model that W~ is read from.
    pub(crate) given: Arc<GivenModel>,
    /// W~ of each layer.
    pub(crate) layers: Vec<GivenLayer>,
}

impl GivenLayers {
    /// The layers that differ more from W than their types explain.
    pub(crate) fn far(&self) -> impl Iterator<Item = &GivenLayer> {
        let layers = self.layers.iter();
        layers.filter(|of| of.check.relative_error > of.tensor.most_left())
    }

    /// Refuses a file of which most layers differ more from W than their types explain.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] naming the first such layer.
    pub(crate) fn refuse_far(&self) -> Result<(), Fatal> {
        let count = self.far().count();
        let Some(first) = self.far().next().filter(|_| 2 * count > self.layers.len()) else {
            return Ok(());
        };
        let reason = format!(
            "{count} of its {} layers differ more from the checkpoint's weights than rounding to \
             their types explains ({}): it is of another version of the model, fine-tuned perhaps, \
             and an adapter would remove that difference; give the checkpoint that it was made from",
            self.layers.len(),
            first.far()
        );
        Err(refuse(self.given.path(), reason))
    }

    /// How zero points are read, where there are two readings.
    #[must_use]
    pub(crate) fn zero_points(&self) -> Option<ZeroPoints> {
        let said = self.given.said_zero_points()?;
        let read = self.layers.iter().filter_map(|of| of.tensor.zero_points());
        let (as_said, otherwise): (Vec<_>, Vec<_>) = read.partition(|read| *read == said);
        Some(ZeroPoints {
            said,
            as_said: as_said.len(),
            otherwise: otherwise.len(),
        })
    }

    /// Gives W~ (m x n) of a layer to `each`, some columns at a time in their order, with the index
    /// of the first number.
    ///
    /// # Errors
    /// Any error of `each`. [`Fatal::Checkpoint`] for a number that is not finite, which
    /// [`GivenModel::find`] lets through nowhere.
    pub(crate) fn pieces(
        &self,
        layer: usize,
        mut each: impl FnMut(usize, &[f32]) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        let of = &self.layers[layer].tensor;
        let (m, n) = (of.in_features(), of.out_features());
        let columns = (DECODED / m).clamp(1, n);
        let mut values = vec![0.0; columns * m];
        for first in (0..n).step_by(columns) {
            let values = &mut values[..columns.min(n - first) * m];
            let decoded = of.columns(first, values);
            decoded.map_err(|e| broken(of, &e.to_string(), SKIP))?;
            each(first * m, values)?;
        }
        Ok(())
    }
}
