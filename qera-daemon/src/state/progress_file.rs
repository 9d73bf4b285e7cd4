//! The file of a site's progress in a snapshot: corrections, vectors, evidence, and the rows kept
//! aside to score them.

use std::path::Path;

use faer::Mat;
use serde::{Deserialize, Serialize};

use crate::calibrate::aside::{Aside, AsideRecord};
use crate::calibrate::site::SiteStatistics;
use crate::error::Fatal;
use crate::host::factors::WrittenCorrection;
use crate::judge::evidence::Evidence;
use crate::judge::progress::{Folding, LayerProgress, SiteProgress, SolveRecord};
use crate::state::damage::{Damage, Unread};
use crate::state::tensor_file::{Pieces, SavedTensor, TensorFile, Values, pieces_of, write};
use crate::weights::layers::Layer;

/// The part of the progress that is no tensor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProgressRecord {
    key: String,
    next_point: u64,
    #[serde(default)]
    folding: Folding,
    #[serde(default)]
    rows_at_last_solve: u64,
    #[serde(default)]
    spared: bool,
    aside: AsideRecord,
    layers: Vec<LayerProgressRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LayerProgressRecord {
    ranks: Vec<usize>,
    evidence: Vec<Evidence>,
    insensitive_to_rows: bool,
    #[serde(default)]
    solve: Option<SolveRecord>,
    reference: Option<Evidence>,
}

impl ProgressRecord {
    /// Reads the record.
    ///
    /// # Errors
    /// The bytes are no record, for the reason given.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

/// Writes the progress and the rows kept aside; returns the file's BLAKE3.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn write_progress(
    path: &Path,
    key: &str,
    statistics: &SiteStatistics,
    progress: &SiteProgress,
) -> Result<blake3::Hash, Fatal> {
    let m = statistics.in_features;
    let layer = |layer: &LayerProgress| LayerProgressRecord {
        ranks: layer.corrections.iter().map(|c| c.rank).collect(),
        evidence: layer.evidence.clone(),
        insensitive_to_rows: layer.insensitive_to_rows,
        solve: layer.solve,
        reference: layer.reference,
    };
    let record = ProgressRecord {
        key: key.into(),
        next_point: progress.next_point,
        folding: progress.folding,
        rows_at_last_solve: progress.rows_at_last_solve,
        spared: progress.spared,
        aside: statistics.aside.record(),
        layers: progress.layers.iter().map(layer).collect(),
    };
    let mut tensors = SavedTensor::rows("aside", m, || statistics.aside.all_rows());
    for (index, layer) in progress.layers.iter().enumerate() {
        for (age, correction) in layer.corrections.iter().enumerate() {
            for (factor, values) in [("a", &correction.lora_a), ("b", &correction.lora_b)] {
                tensors.push(SavedTensor {
                    name: factor_name(index, age, factor),
                    shape: vec![values.len()],
                    values: Values::F32(vec![values]),
                });
            }
        }
        let (n, columns) = (layer.vectors.nrows(), layer.vectors.ncols());
        let columns = (0..columns).filter_map(|j| layer.vectors.col(j).try_as_col_major());
        let columns: Vec<&[f64]> = columns.map(|c| c.as_slice()).collect();
        tensors.push(SavedTensor {
            name: vectors_name(index),
            shape: vec![columns.len(), n],
            values: Values::F64(columns),
        });
    }
    write(path, &record, &tensors)
}

fn factor_name(layer: usize, age: usize, factor: &str) -> String {
    format!("layer-{layer}.correction-{age}.lora_{factor}")
}

fn vectors_name(layer: usize) -> String {
    format!("layer-{layer}.vectors")
}

/// The widths of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerSize {
    /// Width of its input.
    pub(crate) in_features: usize,
    /// Width of its output.
    pub(crate) out_features: usize,
}

impl LayerSize {
    /// The widths of this layer.
    #[must_use]
    pub(crate) const fn of(layer: &Layer) -> Self {
        Self {
            in_features: layer.in_features,
            out_features: layer.out_features,
        }
    }
}

/// What the progress that is read must belong to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpectedProgress<'a> {
    /// The site's key.
    pub(crate) key: &'a str,
    /// The layers of the site.
    pub(crate) layers: &'a [LayerSize],
    /// The share of rows that are kept aside.
    pub(crate) scored_share: f64,
}

/// Progress as it is read back.
#[derive(Debug)]
pub(crate) struct SavedProgress {
    /// What the site's layers carry from one solve point to the next.
    pub(crate) progress: SiteProgress,
    /// The rows that will score their corrections.
    pub(crate) aside: Aside,
}

/// Reads progress and the rows kept aside back.
///
/// # Errors
/// [`Unread::Damaged`] for a file that is not the one the index names, or of another site;
/// [`Unread::NoAnswer`].
pub(crate) fn read_progress(
    path: &Path,
    hash: &str,
    expected: ExpectedProgress<'_>,
) -> Result<SavedProgress, Unread> {
    let width = expected.layers.first().map(|layer| layer.in_features);
    let blocks = |record: &[u8]| match (ProgressRecord::parse(record), width) {
        (Ok(record), Some(width)) => pieces_of("aside", width, &record.aside.blocks),
        _ => Pieces::new(),
    };
    let mut file = TensorFile::open(path, hash, |_| true, blocks)?;
    let record = file.record(ProgressRecord::parse)?;
    let (Some(first), true) = (
        expected.layers.first(),
        record.key == expected.key && record.layers.len() == expected.layers.len(),
    ) else {
        return Err(file.damage("is of another site").into());
    };
    let mut progress = SiteProgress {
        next_point: record.next_point,
        folding: record.folding,
        rows_at_last_solve: record.rows_at_last_solve,
        spared: record.spared,
        layers: Vec::new(),
    };
    let sizes = expected.layers.iter();
    for (index, (layer, size)) in record.layers.into_iter().zip(sizes).enumerate() {
        progress
            .layers
            .push(read_layer(&mut file, index, layer, *size)?);
    }
    let rows = file.rows("aside")?;
    let aside = Aside::restore(
        first.in_features,
        expected.scored_share,
        &record.aside,
        rows,
    );
    let aside =
        aside.ok_or_else(|| file.damage("tensor 'aside' has other rows than its blocks"))?;
    Ok(SavedProgress { progress, aside })
}

fn read_layer(
    file: &mut TensorFile,
    index: usize,
    layer: LayerProgressRecord,
    size: LayerSize,
) -> Result<LayerProgress, Damage> {
    let LayerSize {
        in_features: m,
        out_features: n,
    } = size;
    let mut corrections = Vec::new();
    for (age, &rank) in layer.ranks.iter().enumerate() {
        let mut factor = |factor, width: usize| {
            file.f32_of(&factor_name(index, age, factor), rank.saturating_mul(width))
        };
        corrections.push(WrittenCorrection {
            rank,
            lora_a: factor("a", m)?.to_vec(),
            lora_b: factor("b", n)?.to_vec(),
        });
    }
    let name = vectors_name(index);
    let columns = file.claim(&name)?.shape.first().copied();
    let columns = columns.ok_or_else(|| file.damage(&format!("tensor '{name}' has no shape")))?;
    let values = file.f64(&name, columns.saturating_mul(n))?;
    Ok(LayerProgress {
        corrections,
        vectors: Mat::from_fn(n, columns, |i, j| values[j * n + i]),
        evidence: layer.evidence,
        insensitive_to_rows: layer.insensitive_to_rows,
        solve: layer.solve,
        reference: layer.reference,
    })
}
