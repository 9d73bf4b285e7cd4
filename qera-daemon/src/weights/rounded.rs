//! W~ of the layers that were rounded: where they are kept, which of them there are, how another
//! one is added.

use std::path::{Path, PathBuf};

use qera_core::quantize::{Grid, Levels};

use crate::disk;
use crate::error::Fatal;
use crate::settings::rounding::Rounding;
use crate::weights::Weights;
use crate::weights::frozen::file::{ExpectedLayer, RoundedWeight, path_of, read, refuse};
use crate::weights::frozen::packed::{PackedLayer, PackedShape};
use crate::weights::frozen::record::{
    AskedRounding, MeasuredRounding, RoundingRecord, asked_shrinkage,
};
use crate::weights::frozen::{Frozen, NewlyRounded};

/// The folder of a state, or of what `solve` wrote, that W~ are kept in.
pub(crate) const FOLDER: &str = "rounded";

/// Where W~ are looked for, the first folder first, and where new ones go.
#[derive(Debug, Clone)]
pub(crate) struct RoundedFolders {
    /// Where they are looked for.
    pub(crate) read: Vec<PathBuf>,
    /// Where new ones go.
    pub(crate) write: PathBuf,
    /// Whether W~ of other weights are as none: corrections and evidence of those begin anew too.
    pub(crate) new_checkpoint: bool,
}

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

impl RoundedFolders {
    /// Those of a run: its state alone.
    #[must_use]
    pub(crate) fn of_run(state: &Path, new_checkpoint: bool) -> Self {
        let folder = state.join(FOLDER);
        Self {
            read: vec![folder.clone()],
            write: folder,
            new_checkpoint,
        }
    }

    /// Those of `solve`, which only reads the state: what an earlier one left in this output folder
    /// comes first, and nothing is read where all is to be made again.
    #[must_use]
    pub(crate) fn of_solve(state: &Path, out: &Path, again: bool, new_checkpoint: bool) -> Self {
        let own = out.join(FOLDER);
        Self {
            read: if again {
                Vec::new()
            } else {
                vec![own.clone(), state.join(FOLDER)]
            },
            write: own,
            new_checkpoint,
        }
    }
}

impl Weights {
    /// How W becomes W~.
    #[must_use]
    pub(crate) const fn rounding(&self) -> Rounding {
        self.rounding.rounding
    }

    /// What W~ may be.
    #[must_use]
    pub(crate) const fn grid(&self) -> &Grid {
        &self.quantizer
    }

    /// Keeps W~ in memory from here on.
    pub(crate) fn keep_rounded_in_memory(&self) {
        let _ = self.frozen.set(Frozen::in_memory(self.layers().len()));
    }

    /// Keeps W~ in a run's state from here on, where it depends on rows.
    ///
    /// # Errors
    /// As for [`keep_rounded_in`](Self::keep_rounded_in); [`Fatal::StateRefused`] where it does not,
    /// and the state has some.
    pub(crate) fn keep_rounded_in_state(
        &self,
        state: &Path,
        new_checkpoint: bool,
    ) -> Result<(), Fatal> {
        if self.rounding().uses_rows() {
            return self.keep_rounded_in(&RoundedFolders::of_run(state, new_checkpoint));
        }
        refuse_rounded(state, self.rounding())
    }

    /// Keeps W~ in a folder from here on, and takes those that are there.
    ///
    /// # Errors
    /// [`Fatal::StateRefused`] for a file that is damaged, or was made from other weights or with
    /// other settings; [`Fatal::Io`].
    pub(crate) fn keep_rounded_in(&self, folders: &RoundedFolders) -> Result<(), Fatal> {
        let mut frozen = Frozen::in_folder(&folders.write, self.layers().len())?;
        for layer in 0..self.layers().len() {
            for folder in &folders.read {
                let path = path_of(folder, &self.layers()[layer].name);
                let Some(found) = self.read_rounded(layer, &path, folders.new_checkpoint)? else {
                    continue;
                };
                frozen.take(layer, found, path);
                break;
            }
        }
        let _ = self.frozen.set(frozen);
        Ok(())
    }

    /// What a layer's file says of it, where it serves.
    fn read_rounded(
        &self,
        layer: usize,
        path: &Path,
        new_checkpoint: bool,
    ) -> Result<Option<RoundingRecord>, Fatal> {
        let Some(found) = read(path, self.expected(layer))? else {
            return Ok(None);
        };
        let of = &self.layers()[layer];
        let own = &self.layer_fingerprints[layer];
        if found.weight != *own {
            let other = &found.weight;
            return if new_checkpoint {
                Ok(None)
            } else {
                let why = format!(
                    "was made from another weight ({other}, this checkpoint's is {own}): say --new-checkpoint"
                );
                Err(refuse(path, &of.name, &why))
            };
        }
        let asked = AskedRounding {
            settings: &self.rounding,
            grid: &self.format().to_string(),
            rank: of.rank,
        };
        match found.record.unfit(&asked) {
            Some(why) => Err(refuse(path, &of.name, &why)),
            None => Ok(Some(found.record)),
        }
    }

    /// How W~ of a layer was made; none where it is the nearest of its W and not kept, or not made
    /// yet.
    #[must_use]
    pub(crate) fn rounding_of(&self, layer: usize) -> Option<RoundingRecord> {
        self.frozen.get()?.record(layer).cloned()
    }

    /// Whether W~ of a layer can be had.
    #[must_use]
    pub(crate) fn has_quantized(&self, layer: usize) -> bool {
        let frozen = self.frozen.get();
        !self.rounding().uses_rows() || frozen.is_some_and(|of| of.record(layer).is_some())
    }

    /// Whether the R that W~ of a layer was rounded under held rows of a block.
    #[must_use]
    pub(crate) fn has_seen(&self, layer: usize, block: u64) -> bool {
        let record = self.frozen.get().and_then(|of| of.record(layer));
        record.is_some_and(|record| record.has_seen(block))
    }

    /// BLAKE3 over the names of all layers and the digests of their W~; none as long as one is not
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

    /// Freezes W~ of these layers as the nearest of their W; those that are frozen stay as they
    /// are. Returns the others.
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
            newly.append(&mut frozen.freeze(vec![self.newly(of, record)])?);
        }
        Ok(newly)
    }

    /// Freezes every layer that is not: before the base is written, which holds W~ of all of them.
    /// Returns which they were; none for nearest rounding, which keeps nothing.
    ///
    /// # Errors
    /// As for [`freeze_as_nearest`](Self::freeze_as_nearest).
    pub(crate) fn freeze_rest(&self, journal_position: u64) -> Result<Vec<usize>, Fatal> {
        if !self.rounding().uses_rows() {
            return Ok(Vec::new());
        }
        self.freeze_as_nearest(0..self.layers().len(), journal_position)
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
            grid: self.format().to_string(),
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

    fn expected(&self, layer: usize) -> ExpectedLayer<'_> {
        let of = &self.layers()[layer];
        ExpectedLayer {
            layer: &of.name,
            in_features: of.in_features,
            out_features: of.out_features,
        }
    }

    /// Gives `read` W~ of a layer that is kept.
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

/// W~ of a layer, packed, that is not frozen yet.
#[derive(Debug)]
pub(crate) struct PackedRounding {
    layer: usize,
    packed: PackedLayer,
    measured: Option<MeasuredRounding>,
}

/// W~ is asked for before it is made.
#[derive(Debug, thiserror::Error)]
#[error("W~ is asked for before it was rounded (this is a defect, please report it)")]
struct NotRounded;

/// Refuses a state that W~ were rounded in, for a run that rounds to nearest.
fn refuse_rounded(state: &Path, rounding: Rounding) -> Result<(), Fatal> {
    let folder = state.join(FOLDER);
    if !disk::is_folder(&folder) {
        return Ok(());
    }
    let found = disk::list(&folder).map_err(Fatal::io(&folder, "read"))?;
    let is_weight = |path: &PathBuf| path.extension().is_some_and(|of| of == "safetensors");
    if !found.iter().any(is_weight) {
        return Ok(());
    }
    Err(Fatal::StateRefused {
        path: folder,
        reason: format!(
            "holds W~ that were rounded under what was seen, this run uses --rounding {}: choose another --state, or make that adapter by `solve`",
            rounding.name()
        ),
    })
}
