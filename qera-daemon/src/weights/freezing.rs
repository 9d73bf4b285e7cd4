//! From rounded numbers to a frozen W~, with its record.

use qera_core::quantize::{Levels, round};

use crate::error::Fatal;
use crate::settings::rounding::Rounding;
use crate::weights::Weights;
use crate::weights::frozen::NewlyRounded;
use crate::weights::frozen::file::RoundedWeight;
use crate::weights::frozen::packed::{PackedLayer, PackedShape};
use crate::weights::frozen::record::{MeasuredRounding, RoundingRecord, asked_shrinkage};

/// W~ of a layer as numbers.
#[derive(Debug)]
pub(crate) struct RoundedValues<'a> {
    /// The numbers by columns: `[out_features, in_features]`.
    pub(crate) values: &'a [f32],
    /// The levels of each block, by rows.
    pub(crate) levels: &'a [Levels],
}

/// What W~ of a site's layers was made from.
#[derive(Debug, Clone, Default)]
pub(crate) struct RoundedFrom {
    /// The shrinkage a of R_a = (1 - a) R + a diag(R).
    pub(crate) shrinkage: f64,
    /// The damping lambda, relative to the mean of diag(R_a).
    pub(crate) damping: f64,
    /// The number of rows that R was the mean of.
    pub(crate) rows: u64,
    /// Number of the last shard in R.
    pub(crate) journal_position: u64,
    /// Numbers of the blocks of rows that were left out of R.
    pub(crate) left_out: Vec<u64>,
    /// Number of the first block that came later.
    pub(crate) blocks_seen: u64,
}

/// W~ of a layer, packed but not frozen yet.
#[derive(Debug)]
pub(crate) struct PackedRounding {
    layer: usize,
    packed: PackedLayer,
    measured: Option<MeasuredRounding>,
}

impl Weights {
    /// Packs W~ of a layer, ready to be frozen.
    ///
    /// # Errors
    /// [`Fatal::Solve`] for numbers that are not on their levels, which would be a defect.
    pub(crate) fn pack(
        &self,
        layer: usize,
        of: &RoundedValues<'_>,
        measured: MeasuredRounding,
    ) -> Result<PackedRounding, Fatal> {
        Ok(PackedRounding {
            layer,
            packed: self.packed(layer, of)?,
            measured: Some(measured),
        })
    }

    fn packed(&self, layer: usize, of: &RoundedValues<'_>) -> Result<PackedLayer, Fatal> {
        let own = &self.layers()[layer];
        let shape = PackedShape {
            in_features: own.in_features,
            out_features: own.out_features,
            block_size: self.quantizer.block_size(),
        };
        PackedLayer::pack(shape, of.values, of.levels).map_err(|reason| Fatal::Solve {
            layer: own.name.clone(),
            reason: reason.into(),
        })
    }

    /// Freezes W~ of layers that were rounded together; returns the indices of those that were not
    /// frozen before.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn freeze(
        &self,
        rounded: Vec<PackedRounding>,
        from: &RoundedFrom,
    ) -> Result<Vec<usize>, Fatal> {
        let newly = rounded.into_iter().map(|of| {
            let record = self.record(&of, self.rounding(), from);
            self.newly(of, record)
        });
        self.frozen
            .get()
            .map_or(Ok(Vec::new()), |frozen| frozen.freeze(newly.collect()))
    }

    /// Freezes W~ of these layers as rounded to nearest, all at once. Layers that are frozen
    /// already stay as they are. Returns the indices of the others.
    ///
    /// # Errors
    /// W~ cannot be frozen, as for [`original`](Self::original), or the disk fails ([`Fatal::Io`]).
    pub(crate) fn freeze_as_nearest(
        &self,
        layers: impl IntoIterator<Item = usize>,
        journal_position: u64,
    ) -> Result<Vec<usize>, Fatal> {
        let Some(frozen) = self.frozen.get() else {
            return Ok(Vec::new());
        };
        let mut newly = Vec::new();
        let from = RoundedFrom {
            journal_position,
            ..RoundedFrom::default()
        };
        for layer in layers {
            if frozen.record(layer).is_some() {
                continue;
            }
            let of = self.nearest(layer)?;
            let record = self.record(&of, Rounding::Nearest, &from);
            newly.push(self.newly(of, record));
        }
        frozen.freeze(newly)
    }

    /// Gives `read` W~ of a layer as codes and levels: the kept one, or the nearest. A block of
    /// MXINT whose magnitudes are all below 2^-94 is treated as if they were 2^-94.
    ///
    /// Any error of `read`, and those of [`quantized`](Self::quantized).
    /// What `read` returns, and as for [`quantized`](Self::quantized).
    pub(crate) fn with_codes(
        &self,
        layer: usize,
        read: impl FnOnce(&PackedLayer) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        if self.rounding().uses_rows() {
            return self.kept(layer, read);
        }
        read(&self.nearest(layer)?.packed)
    }

    /// Rounds to nearest in the memory of W, row by row.
    fn nearest(&self, layer: usize) -> Result<PackedRounding, Fatal> {
        let (mut values, own) = (self.original(layer)?, &self.layers()[layer]);
        let (grid, m) = (&self.quantizer, own.in_features);
        let blocks = m.div_ceil(grid.block_size());
        let unset = grid.candidates(&[0.0]).first();
        let mut levels = vec![unset; own.out_features * blocks];
        let mut rounded = vec![0.0; m];
        for (row, levels) in values
            .chunks_exact_mut(m)
            .zip(levels.chunks_exact_mut(blocks))
        {
            let done = round::nearest(grid, row, m, &mut rounded, levels);
            done.map_err(|reason| Fatal::Solve {
                layer: own.name.clone(),
                reason: reason.into(),
            })?;
            row.copy_from_slice(&rounded);
        }
        let of = RoundedValues {
            values: &values,
            levels: &levels,
        };
        Ok(PackedRounding {
            layer,
            packed: self.packed(layer, &of)?,
            measured: None,
        })
    }

    fn record(
        &self,
        of: &PackedRounding,
        rounding: Rounding,
        from: &RoundedFrom,
    ) -> RoundingRecord {
        let settings = &self.rounding;
        let knows = rounding.knows_the_adapter();
        RoundingRecord {
            rounding,
            rank: if knows {
                self.layers()[of.layer].rank
            } else {
                0
            },
            shrinkage: from.shrinkage,
            shrinkage_asked: asked_shrinkage(settings.shrinkage),
            base_share: knows.then_some(settings.base_share),
            damping: from.damping,
            grid: self.quantizer.to_string(),
            block_size: self.quantizer.block_size(),
            rows: from.rows,
            journal_position: from.journal_position,
            left_out: from.left_out.clone(),
            blocks_seen: from.blocks_seen,
            measured: of.measured,
            digest: of.packed.digest(),
        }
    }

    fn newly(&self, of: PackedRounding, record: RoundingRecord) -> NewlyRounded {
        NewlyRounded {
            layer: of.layer,
            weight: RoundedWeight {
                layer: self.layers()[of.layer].name.clone(),
                weight: self.layer_fingerprints[of.layer].clone(),
                record,
                packed: of.packed,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::Settings;
    use crate::weights::opening::Model;
    use crate::weights::recording::Recording;
    use safetensors::Dtype;
    use safetensors::tensor::{TensorView, serialize_to_file};

    /// This holds for the rule of each grid: q4-0 rounds halves up, the others to even.
    #[test]
    fn what_is_frozen_as_nearest_is_what_nearest_rounding_makes() {
        let folder = std::env::temp_dir().join(format!("qera-halves-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // The first number is the largest; the others are halves of its levels, up and down.
        let halves = (0..64).map(|i| (i as f32 - 16.0) / 2.0);
        let values: Vec<f32> = halves.map(|half| half.clamp(-8.0, 7.0)).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![2, 32], &bytes).unwrap();
        let path = folder.join("model.safetensors");
        serialize_to_file([("a.weight", view)], None, &path).unwrap();
        for quantizer in ["q4-0", "mxint3", "int3"] {
            let options =
                format!("rounding = \"projected\"\nquantizer = \"{quantizer}\"\nblock-size = 32");
            let mut settings = Settings::from_toml(&options).unwrap();
            settings.weights.checkpoint = Some(path.clone());
            let mut recording = Recording::default();
            recording.linears.see("a".into());
            let model = Model::open(&settings).unwrap().unwrap();
            let weights = model.select(&settings, &recording).unwrap();
            weights.keep_rounded_in_memory();
            assert_eq!(weights.freeze_as_nearest([0], 1).unwrap(), [0]);
            let mut found = Vec::new();
            let all = weights.quantized(0, |piece| {
                found.extend_from_slice(piece);
                Ok(())
            });
            all.unwrap();
            let mut nearest = vec![0.0; values.len()];
            let rounded = weights
                .grid()
                .quantize_dequantize(&values, 32, &mut nearest);
            rounded.unwrap();
            assert_eq!(found, nearest, "{quantizer}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
