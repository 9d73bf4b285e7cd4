//! Sketches of the output errors of a site's layers, which stand for R where that is not gathered.
//!
//! Rows wait in the form in which they came until there are [`SKETCH_ROWS`], whatever the shards:
//! so what a sketch holds is a function of the rows and their order alone, and no shard pays for a
//! shrink of its few rows. E of a layer is made when there are enough, once for all that there are.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use qera_core::statistics::SketchTotals;

use crate::calibrate::blocks::{SavedReader, SavedRows};
use crate::calibrate::pending::{Pending, PendingRecord};
use crate::error::Fatal;
use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::stored::StoredRows;
use crate::host::output_sketch::{OutputSketch, SKETCH_ROWS};
use crate::host::solve_error::SolveError;
use crate::weights::site_layers::SiteLayers;
use crate::weights::sketched::{SiteSketch, SketchedLayer};

/// The sketches of a site.
#[derive(Debug, Clone)]
pub(crate) struct SiteOutputs {
    in_features: usize,
    /// Of each layer, in the site's order. Copies share them until one of them folds.
    layers: Arc<Vec<LayerOutputs>>,
    /// Rows that are in no sketch so far.
    waiting: Pending,
}

/// The sketch of a layer.
#[derive(Debug, Clone)]
struct LayerOutputs {
    name: String,
    sketch: OutputSketch,
    /// Whether rows are missing in it, because their output errors overflow.
    is_lost: bool,
}

/// What a snapshot keeps of the sketches of a site, beside their numbers and the rows that wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OutputsRecord {
    /// Rows of each sketch.
    kept: usize,
    layers: Vec<LayerOutputsRecord>,
    /// Rows that wait, where there are some.
    waiting: Option<PendingRecord>,
}

/// What a snapshot keeps of a sketch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct LayerOutputsRecord {
    name: String,
    weight: f64,
    trace: f64,
    shrunk: f64,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    is_lost: bool,
}

/// The numbers of a sketch as they are saved.
pub(crate) struct SavedSketch<'a> {
    /// Place of the layer in the record.
    pub(crate) index: usize,
    /// Row-major.
    pub(crate) rows: &'a [f32],
}

/// Why saved sketches are not those that are expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutputsDamage {
    /// No sketch of a layer, or one of another size.
    #[error("has no sketch of {0} of the size that the state says")]
    Layer(String),
    /// Rows that wait do not fit their record.
    #[error("tensor 'waiting' has other rows than its record")]
    Waiting,
}

impl SiteOutputs {
    /// Of no row.
    #[must_use]
    pub(crate) fn new(in_features: usize, of: &SiteSketch) -> Self {
        let layer = |of_layer: &SketchedLayer| LayerOutputs {
            name: of_layer.name.clone(),
            sketch: OutputSketch::new(of.kept, of_layer.out_features),
            is_lost: false,
        };
        Self {
            in_features,
            layers: Arc::new(of.layers.iter().map(layer).collect()),
            waiting: Pending::new(in_features),
        }
    }

    /// Takes rows in: as many whole pieces as there are with those that wait are shrunk into every
    /// sketch, and the others wait.
    ///
    /// # Errors
    /// [`Fatal`] where the weights of a layer cannot be read.
    pub(crate) fn fold(&mut self, rows: StoredRows<'_>, of: &SiteLayers<'_>) -> Result<(), Fatal> {
        let count = rows.rows();
        let before = self.waiting.stored().rows();
        if before + count < SKETCH_ROWS {
            self.waiting.push(rows);
            return Ok(());
        }
        // Of the first piece some rows have waited.
        let first = if before == 0 { 0 } else { SKETCH_ROWS - before };
        let mut joined = core::mem::replace(&mut self.waiting, Pending::new(self.in_features));
        if first > 0 {
            joined.push(rows.slice(0..first));
        }
        let whole = first + (count - first) / SKETCH_ROWS * SKETCH_ROWS;
        for (member, layer) in Arc::make_mut(&mut self.layers).iter_mut().enumerate() {
            let values = of.error(member)?;
            let error = ColumnMajor::new(&values, self.in_features);
            if first > 0 {
                layer.fold(of.compute, error, joined.stored());
            }
            for piece in (first..whole).step_by(SKETCH_ROWS) {
                layer.fold(of.compute, error, rows.slice(piece..piece + SKETCH_ROWS));
            }
        }
        if whole < count {
            self.waiting.push(rows.slice(whole..count));
        }
        Ok(())
    }

    /// The sketch of a layer with the rows that wait, given its E.
    ///
    /// # Errors
    /// [`SolveError`]: output errors that overflow.
    pub(crate) fn complete(
        &self,
        member: usize,
        compute: Compute<'_>,
        error: ColumnMajor<'_>,
    ) -> Result<OutputSketch, SolveError> {
        let layer = &self.layers[member];
        if layer.is_lost {
            return Err(SolveError::Overflow);
        }
        let mut sketch = layer.sketch.clone();
        sketch.fold(compute, error, self.waiting.stored())?;
        Ok(sketch)
    }

    /// What a snapshot keeps beside numbers and rows.
    #[must_use]
    pub(crate) fn record(&self) -> OutputsRecord {
        let layer = |layer: &LayerOutputs| {
            let SketchTotals {
                weight,
                trace,
                shrunk,
            } = layer.sketch.totals();
            LayerOutputsRecord {
                name: layer.name.clone(),
                weight,
                trace,
                shrunk,
                is_lost: layer.is_lost,
            }
        };
        OutputsRecord {
            kept: self.layers.first().map_or(0, |layer| layer.sketch.kept()),
            layers: self.layers.iter().map(layer).collect(),
            waiting: self.waiting.record(),
        }
    }

    /// The numbers of each sketch.
    pub(crate) fn saved(&self) -> impl Iterator<Item = SavedSketch<'_>> {
        let layers = self.layers.iter().enumerate();
        layers.map(|(index, layer)| SavedSketch {
            index,
            rows: layer.sketch.rows(),
        })
    }

    /// The rows that wait.
    #[must_use]
    pub(crate) fn waiting(&self) -> StoredRows<'_> {
        self.waiting.stored()
    }

    /// The sketches of those layers that are expected, as they were saved; `read` gives the numbers
    /// of the sketch at this place of the record.
    ///
    /// # Errors
    /// [`OutputsDamage`], and what `read` returns.
    pub(crate) fn restore<E: From<OutputsDamage>>(
        in_features: usize,
        expected: &SiteSketch,
        record: &OutputsRecord,
        rows: SavedRows,
        mut read: impl FnMut(usize, usize) -> Result<PageVec<f32>, E>,
    ) -> Result<Self, E> {
        let mut layers = Vec::with_capacity(expected.layers.len());
        for SketchedLayer { name, out_features } in &expected.layers {
            let no_sketch = || OutputsDamage::Layer(name.clone());
            let found = record.layers.iter().position(|of| of.name == *name);
            let index = found.filter(|_| record.kept == expected.kept);
            let index = index.ok_or_else(no_sketch)?;
            let LayerOutputsRecord {
                weight,
                trace,
                shrunk,
                is_lost,
                ..
            } = record.layers[index];
            let totals = SketchTotals {
                weight,
                trace,
                shrunk,
            };
            let numbers = read(index, record.kept * out_features)?;
            let sketch = OutputSketch::resume(numbers, *out_features, totals);
            layers.push(LayerOutputs {
                name: name.clone(),
                sketch: sketch.map_err(|_| no_sketch())?,
                is_lost,
            });
        }
        let mut saved = SavedReader::new(in_features, rows);
        let waiting = saved.pending(record.waiting.as_ref());
        let waiting = waiting.filter(|of| saved.is_empty() && of.stored().rows() < SKETCH_ROWS);
        Ok(Self {
            in_features,
            layers: Arc::new(layers),
            waiting: waiting.ok_or(OutputsDamage::Waiting)?,
        })
    }
}

impl LayerOutputs {
    /// Shrinks a piece in. What overflows is as rare as it is hopeless: the layer cannot be solved
    /// from then on, and the others go on.
    fn fold(&mut self, compute: Compute<'_>, error: ColumnMajor<'_>, rows: StoredRows<'_>) {
        self.is_lost = self.is_lost || self.sketch.fold(compute, error, rows).is_err();
    }
}
