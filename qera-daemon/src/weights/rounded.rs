//! W~ of rounded layers, as every reader gets it.

use qera_core::quantize::Grid;

use crate::error::Fatal;
use crate::settings::rounding::Rounding;
use crate::weights::Weights;
use crate::weights::frozen::Frozen;
use crate::weights::frozen::file::ExpectedLayer;
use crate::weights::frozen::packed::PackedLayer;
use crate::weights::frozen::record::RoundingRecord;

impl Weights {
    /// How W becomes W~.
    #[must_use]
    pub(crate) const fn rounding(&self) -> Rounding {
        self.rounding.rounding
    }

    /// The grid that W~ lies on.
    #[must_use]
    pub(crate) const fn grid(&self) -> &Grid {
        &self.quantizer
    }

    /// Keeps W~ in memory from here on.
    pub(crate) fn keep_rounded_in_memory(&self) {
        let _ = self.frozen.set(Frozen::in_memory(self.layers().len()));
    }

    /// How W~ of a layer was made; `None` where it is rounded to nearest and not kept, or not made
    /// yet.
    #[must_use]
    pub(crate) fn rounding_of(&self, layer: usize) -> Option<RoundingRecord> {
        self.frozen.get()?.record(layer).cloned()
    }

    /// Whether W~ of a layer exists, or can be made at any time.
    #[must_use]
    pub(crate) fn has_quantized(&self, layer: usize) -> bool {
        let frozen = self.frozen.get();
        !self.rounding().uses_rows() || frozen.is_some_and(|of| of.record(layer).is_some())
    }

    /// Whether W~ of every layer exists, or can be made at any time.
    #[must_use]
    pub(crate) fn has_all_quantized(&self) -> bool {
        (0..self.layers().len()).all(|layer| self.has_quantized(layer))
    }

    /// Whether the R that a layer's W~ was rounded under held rows of a block.
    #[must_use]
    pub(crate) fn has_seen(&self, layer: usize, block: u64) -> bool {
        let record = self.frozen.get().and_then(|of| of.record(layer));
        record.is_some_and(|record| record.has_seen(block))
    }

    /// BLAKE3 over the names of all layers and the digests of their W~; `None` while one is not
    /// made, and for nearest rounding.
    #[must_use]
    pub(crate) fn frozen_digest(&self) -> Option<String> {
        let frozen = self.frozen.get().filter(|_| self.rounding().uses_rows())?;
        let mut hasher = blake3::Hasher::new();
        for (layer, of) in self.layers().iter().enumerate() {
            let digest = &frozen.record(layer)?.digest;
            hasher.update(format!("{}\0{digest}\0", of.name).as_bytes());
        }
        Some(format!("blake3:{}", hasher.finalize().to_hex()))
    }

    pub(super) fn expected(&self, layer: usize) -> ExpectedLayer<'_> {
        let of = &self.layers()[layer];
        ExpectedLayer {
            layer: &of.name,
            in_features: of.in_features,
            out_features: of.out_features,
        }
    }

    /// Gives `read` the kept W~ of a layer.
    pub(super) fn kept(
        &self,
        layer: usize,
        read: impl FnOnce(&PackedLayer) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        let frozen = self.frozen.get();
        let shown = frozen.map(|frozen| frozen.with(layer, self.expected(layer), read));
        match shown.transpose()?.flatten() {
            Some(()) => Ok(()),
            None => Err(Fatal::Solve {
                layer: self.layers()[layer].name.clone(),
                reason: NotRounded.into(),
            }),
        }
    }
}

/// The error that W~ is asked for before it is made.
#[derive(Debug, thiserror::Error)]
#[error("W~ is asked for before it was rounded (this is a defect, please report it)")]
struct NotRounded;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use crate::weights::freezing::{PackedRounding, RoundedFrom, RoundedValues};
    use crate::weights::frozen::record::MeasuredRounding;
    use crate::weights::opening::Model;
    use crate::weights::recording::Recording;
    use qera_core::quantize::Levels;
    use safetensors::Dtype;
    use safetensors::tensor::{TensorView, serialize_to_file};

    const VALUES: [f32; 8] = [1.0, 0.3, -0.7, 0.0, 8.0, -8.0, 5.0, 2.5];

    /// Two layers of these weights, to be rounded by projection.
    fn weights(name: &str) -> Weights {
        let folder = std::env::temp_dir().join(format!("qera-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let bytes: Vec<u8> = VALUES.iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![2, 4], &bytes).unwrap();
        let tensors = [("a.weight", view.clone()), ("b.weight", view)];
        let path = folder.join("model.safetensors");
        serialize_to_file(tensors, None, &path).unwrap();
        let options = "rounding = \"projected\"\nquantizer = \"mxint2\"\nblock-size = 4";
        let mut settings = Settings::from_toml(options).unwrap();
        settings.weights.checkpoint = Some(path);
        let mut recording = Recording::default();
        ["a", "b"]
            .iter()
            .for_each(|layer| recording.linears.see((*layer).into()));
        let model = Model::open(&settings).unwrap().unwrap();
        let weights = model.select(&settings, &recording).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        weights
    }

    /// A W~ with every third level raised, which no nearest rounding would give.
    fn rounded(weights: &Weights, layer: usize, values: &[f32; 8]) -> PackedRounding {
        let levels = [1.0, 8.0].map(|step| Levels {
            step,
            lowest: -1.0,
            highest: 1.0,
        });
        let of = RoundedValues {
            values,
            levels: &levels,
        };
        let measured = MeasuredRounding {
            error_alone: 0.3,
            error_nearest: 0.2,
            error_with: 0.1,
        };
        weights.pack(layer, &of, measured).unwrap()
    }

    fn quantized(weights: &Weights, layer: usize) -> Result<Vec<f32>, Fatal> {
        let mut all = Vec::new();
        weights.quantized(layer, |piece| {
            all.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn what_is_frozen_is_what_everyone_reads() {
        let weights = weights("frozen-read");
        let asked = |layer: usize| {
            let error = weights.error(layer, weights.original(layer).unwrap());
            error.map(|error| error.to_vec())
        };
        // Before it is made there is nothing to read, not even the nearest.
        for refused in [asked(1).unwrap_err(), quantized(&weights, 1).unwrap_err()] {
            let said = refused.to_string();
            assert!(
                said.starts_with("layer b: W~ is asked for before"),
                "{said}"
            );
        }
        weights.keep_rounded_in_memory();
        assert!(asked(1).is_err() && !weights.has_quantized(1));
        let own = [1.0, 1.0, 0.0, -1.0, 8.0, -8.0, 0.0, 8.0];
        let from = RoundedFrom {
            rows: 9,
            left_out: vec![2],
            blocks_seen: 3,
            ..RoundedFrom::default()
        };
        let packed = vec![rounded(&weights, 1, &own)];
        assert_eq!(weights.freeze(packed, &from).unwrap(), [1]);
        assert_eq!(quantized(&weights, 1).unwrap(), own);
        let error = asked(1).unwrap();
        for ((w, q), e) in VALUES.iter().zip(own).zip(error) {
            assert_eq!((w - q).to_bits(), e.to_bits());
        }
        let seen = |block| weights.has_seen(1, block);
        assert!(seen(0) && !seen(2) && !seen(3) && !weights.has_seen(0, 0));
        assert!(asked(0).is_err() && weights.frozen_digest().is_none());

        // The rest is rounded to nearest, and what was frozen stays.
        assert_eq!(weights.freeze_as_nearest(0..2, 5).unwrap(), [0]);
        assert_eq!(quantized(&weights, 1).unwrap(), own);
        let nearest = [1.0, 0.0, -1.0, 0.0, 8.0, -8.0, 8.0, 0.0];
        assert_eq!(quantized(&weights, 0).unwrap(), nearest);
        let record = weights.rounding_of(0).unwrap();
        assert_eq!((record.rounding, record.rows), (Rounding::Nearest, 0));
        assert_eq!((record.journal_position, record.measured), (5, None));
        assert!(weights.frozen_digest().is_some());
        assert!(weights.freeze_as_nearest(0..2, 6).unwrap().is_empty());
    }
}
