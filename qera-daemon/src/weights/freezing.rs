//! From numbers to a W~ that is frozen, with what is known of it.

use qera_core::quantize::Levels;

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
    /// By columns: `[out_features, in_features]`.
    pub(crate) values: &'a [f32],
    /// Of each block, by rows.
    pub(crate) levels: &'a [Levels],
}

/// What W~ of a site's layers was made from.
#[derive(Debug, Clone, Default)]
pub(crate) struct RoundedFrom {
    /// a.
    pub(crate) shrinkage: f64,
    /// lambda over the mean of diag(R_a).
    pub(crate) damping: f64,
    /// Rows that R held.
    pub(crate) rows: u64,
    /// Number of the last shard in it.
    pub(crate) journal_position: u64,
    /// Blocks left out.
    pub(crate) left_out: Vec<u64>,
    /// The first block that came later.
    pub(crate) blocks_seen: u64,
}

/// W~ of a layer, packed, that is not frozen yet.
#[derive(Debug)]
pub(crate) struct PackedRounding {
    layer: usize,
    packed: PackedLayer,
    measured: Option<MeasuredRounding>,
}

impl Weights {
    /// What is kept as W~ of a layer, ready to be frozen.
    ///
    /// # Errors
    /// [`Fatal::Solve`] for numbers that are not on their levels: a defect.
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

    /// Freezes W~ of layers that were rounded together; returns those that were not frozen before.
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

    /// Freezes W~ of these layers, all at once, as the nearest of their W; those that are frozen
    /// stay as they are. Returns the others.
    ///
    /// # Errors
    /// As for [`original`](Self::original), and [`Fatal::Io`].
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
            let (weight, m) = (self.original(layer)?, self.layers()[layer].in_features);
            let blocks = weight
                .chunks_exact(m)
                .flat_map(|row| row.chunks(self.quantizer.block_size()));
            let levels: Vec<Levels> = blocks
                .map(|block| self.quantizer.candidates(block).first())
                .collect();
            let mut values = weight;
            let blocks = values
                .chunks_exact_mut(m)
                .flat_map(|row| row.chunks_mut(self.quantizer.block_size()));
            for (block, levels) in blocks.zip(&levels) {
                block.iter_mut().for_each(|w| *w = levels.nearest(*w));
            }
            let of = PackedRounding {
                layer,
                packed: self.packed(
                    layer,
                    &RoundedValues {
                        values: &values,
                        levels: &levels,
                    },
                )?,
                measured: None,
            };
            let record = self.record(&of, Rounding::Nearest, &from);
            newly.push(self.newly(of, record));
        }
        frozen.freeze(newly)
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
