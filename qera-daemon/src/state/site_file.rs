//! A site's statistics and progress as safetensors files, so that other programs can read them too.
//!
//! The statistics' bytes are a function of the journal alone, unless rows were left out after convergence; what else depends on checkpoint and settings (rows kept aside,
//! corrections, vectors, evidence) is in a file of its own.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytemuck::Pod;
use faer::Mat;
use qera_core::dtype::FloatDtype;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::calibrate::aside::{Aside, AsideRecord};
use crate::calibrate::blocks::{BlocksRecord, DTYPES, SavedRows};
use crate::calibrate::site::SiteStatistics;
use crate::calibrate::window::Window;
use crate::error::Fatal;
use crate::formats::safetensors::header::{Claim, Header, dtype_name};
use crate::formats::safetensors::writer::{Sink, TensorPlan, write_hashed};
use crate::host::factors::WrittenCorrection;
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::stored::{StoredNumbers, StoredRows};
use crate::host::second_moment::{SecondMoment, SecondMomentKind};
use crate::judge::evidence::Evidence;
use crate::judge::progress::{Folding, LayerProgress, SiteProgress, SolveRecord};

/// The metadata key of what is no tensor.
const SITE: &str = "qera.site";
/// Bytes converted at a time.
const PIECE: usize = 1 << 18;

/// The part of the statistics that is no tensor.
#[derive(Debug, Serialize, Deserialize)]
struct StatisticsRecord {
    key: String,
    in_features: usize,
    rows: u64,
    #[serde(default)]
    rows_skipped: u64,
    batch_weight: f64,
    window: BlocksRecord,
}

/// The part of the progress that is no tensor.
#[derive(Debug, Serialize, Deserialize)]
struct ProgressRecord {
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

/// Tensors to be written: name, shape, values.
enum Values<'a> {
    F64(Vec<&'a [f64]>),
    F32(Vec<&'a [f32]>),
    /// Rows of one type.
    Rows(Vec<StoredRows<'a>>, FloatDtype),
}

type Tensors<'a> = Vec<(String, Vec<usize>, Values<'a>)>;

/// Writes the statistics; returns the file's BLAKE3.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn write_statistics(
    path: &Path,
    key: &str,
    statistics: &SiteStatistics,
) -> Result<blake3::Hash, Fatal> {
    let m = statistics.in_features;
    let record = StatisticsRecord {
        key: key.into(),
        in_features: m,
        rows: statistics.rows,
        rows_skipped: statistics.rows_skipped,
        batch_weight: statistics.batch_weight,
        window: statistics.window.record(),
    };
    let mut tensors: Tensors<'_> = vec![
        (
            "batch_max".into(),
            vec![m],
            Values::F64(vec![&statistics.batch_max]),
        ),
        (
            "mean_abs".into(),
            vec![m],
            Values::F64(vec![&statistics.mean_abs]),
        ),
    ];
    for saved in statistics.second_moment.saved() {
        let shape = vec![saved.values.len()];
        tensors.push((saved.name.into(), shape, Values::F64(vec![saved.values])));
    }
    tensors.extend(rows_by_dtype("window", m, || statistics.window.all_rows()));
    write(path, &record, &tensors)
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
    let mut tensors = rows_by_dtype("aside", m, || statistics.aside.all_rows());
    for (index, layer) in progress.layers.iter().enumerate() {
        for (age, correction) in layer.corrections.iter().enumerate() {
            for (name, values) in [("a", &correction.lora_a), ("b", &correction.lora_b)] {
                let name = format!("layer-{index}.correction-{age}.lora_{name}");
                tensors.push((name, vec![values.len()], Values::F32(vec![values])));
            }
        }
        let (n, columns) = (layer.vectors.nrows(), layer.vectors.ncols());
        let columns = (0..columns).filter_map(|j| layer.vectors.col(j).try_as_col_major());
        let columns: Vec<&[f64]> = columns.map(|c| c.as_slice()).collect();
        tensors.push((
            format!("layer-{index}.vectors"),
            vec![columns.len(), n],
            Values::F64(columns),
        ));
    }
    write(path, &record, &tensors)
}

/// Rows as one tensor for each type that some are kept in.
fn rows_by_dtype<'a, I: Iterator<Item = StoredRows<'a>>>(
    name: &str,
    in_features: usize,
    rows: impl Fn() -> I,
) -> Tensors<'a> {
    let of_dtype = |dtype: FloatDtype| {
        let of_dtype: Vec<_> = rows()
            .filter(|r| r.rows() > 0 && r.dtype() == dtype)
            .collect();
        let count: usize = of_dtype.iter().map(StoredRows::rows).sum();
        let shape = vec![count, in_features];
        (rows_name(name, dtype), shape, Values::Rows(of_dtype, dtype))
    };
    let tensors = DTYPES.into_iter().map(of_dtype);
    tensors.filter(|(_, shape, _)| shape[0] > 0).collect()
}

fn rows_name(name: &str, dtype: FloatDtype) -> String {
    format!("{name}.{}", dtype.name())
}

fn write(
    path: &Path,
    record: &impl Serialize,
    tensors: &Tensors<'_>,
) -> Result<blake3::Hash, Fatal> {
    let record = serde_json::to_string(record).unwrap_or_default();
    let plans: Vec<_> = tensors
        .iter()
        .map(|(name, shape, values)| TensorPlan {
            name: name.clone(),
            dtype: match values {
                Values::F64(_) => Dtype::F64,
                Values::F32(_) => Dtype::F32,
                Values::Rows(_, dtype) => dtype_name(*dtype),
            },
            shape: shape.clone(),
        })
        .collect();
    write_hashed(
        path,
        &[(SITE, record)],
        &plans,
        |index, out| match &tensors[index].2 {
            Values::F64(parts) => parts
                .iter()
                .try_for_each(|p| put(p, |v| v.to_le_bytes(), out)),
            Values::F32(parts) => parts
                .iter()
                .try_for_each(|p| put(p, |v| v.to_le_bytes(), out)),
            Values::Rows(parts, _) => parts.iter().try_for_each(|rows| match rows.numbers {
                StoredNumbers::Floats(values) => put(values, |v| v.to_le_bytes(), out),
                StoredNumbers::Bytes(bytes, _) => out.write_all(bytes),
            }),
        },
    )
}

fn put<T: Copy, const N: usize>(
    values: &[T],
    bytes: fn(T) -> [u8; N],
    out: &mut Sink<'_>,
) -> Result<(), Fatal> {
    let mut buffer = Vec::with_capacity(PIECE.min(values.len() * N));
    values.chunks(PIECE / N).try_for_each(|piece| {
        buffer.clear();
        piece.iter().for_each(|v| buffer.extend(bytes(*v)));
        out.write_all(&buffer)
    })
}

/// A file of a snapshot, its content checked against the hash in the index.
struct Reader {
    file: File,
    header: Header,
}

impl Reader {
    /// `None` for anything that is not the file that was written. A disk that does not answer says nothing about the file.
    fn open(path: &Path, hash: &str) -> Result<Option<Self>, Fatal> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Fatal::io(path, "open")(e)),
        };
        let mut hasher = blake3::Hasher::new();
        hasher
            .update_reader(&file)
            .map_err(Fatal::io(path, "read"))?;
        if hasher.finalize().to_hex().as_str() != hash {
            return Ok(None);
        }
        Ok(Header::read(path).ok().map(|header| Self { file, header }))
    }

    fn record<T: for<'de> Deserialize<'de>>(&self) -> Option<T> {
        serde_json::from_str(self.header.metadata.get(SITE)?).ok()
    }

    fn claim(&self, name: &str) -> Option<&Claim> {
        self.header.claims.iter().find(|c| c.key == name)
    }

    fn values<T: Pod, const N: usize>(
        &self,
        name: &str,
        value: fn([u8; N]) -> T,
    ) -> Option<PageVec<T>> {
        let claim = self.claim(name)?;
        let mut values = PageVec::zeroed(claim.bytes / N);
        let mut piece = vec![0; PIECE.min(claim.bytes)];
        let mut at = claim.start;
        for values in values.chunks_mut(PIECE / N) {
            let piece = &mut piece[..values.len() * N];
            self.file.read_exact_at(piece, at).ok()?;
            let found = piece.as_chunks::<N>().0.iter();
            values
                .iter_mut()
                .zip(found)
                .for_each(|(to, b)| *to = value(*b));
            at += piece.len() as u64;
        }
        Some(values)
    }

    fn f64(&self, name: &str, length: usize) -> Option<PageVec<f64>> {
        self.values(name, f64::from_le_bytes)
            .filter(|v| v.len() == length)
    }

    /// The rows of each type; `None` for a tensor of another type than its name says.
    fn rows(&self, name: &str) -> Option<SavedRows> {
        let mut saved = SavedRows::default();
        for (dtype, bytes) in DTYPES.into_iter().zip(&mut saved.bytes) {
            let name = rows_name(name, dtype);
            if let Some(claim) = self.claim(&name) {
                if claim.dtype != dtype_name(dtype) {
                    return None;
                }
                *bytes = self.values(&name, u8::from_le_bytes)?.to_vec();
            }
        }
        Some(saved)
    }

    fn f32(&self, name: &str) -> Option<PageVec<f32>> {
        self.values(name, f32::from_le_bytes)
    }
}

/// Reads statistics back; `None` for a file that is not the one the index names, or of another site.
pub(crate) fn read_statistics(
    path: &Path,
    hash: &str,
    (key, m): (&str, usize),
    keeps_r: bool,
) -> Result<Option<SiteStatistics>, Fatal> {
    let file = Reader::open(path, hash)?;
    Ok(file.and_then(|file| statistics_in(&file, (key, m), keeps_r)))
}

fn statistics_in(file: &Reader, (key, m): (&str, usize), keeps_r: bool) -> Option<SiteStatistics> {
    let record: StatisticsRecord = file.record()?;
    if record.key != key || record.in_features != m {
        return None;
    }
    let kind = SecondMomentKind::for_method(keeps_r);
    Some(SiteStatistics {
        in_features: m,
        second_moment: SecondMoment::load(kind, m, |name, length| file.f64(name, length))?,
        mean_abs: file.f64("mean_abs", m)?.to_vec(),
        batch_max: file.f64("batch_max", m)?.to_vec(),
        window: Window::restore(m, &record.window, &file.rows("window")?)?,
        aside: Aside::new(m, 0.0),
        rows: record.rows,
        rows_skipped: record.rows_skipped,
        batch_weight: record.batch_weight,
    })
}

/// Reads progress and the rows kept aside back. `layers` are (in_features, out_features) of the site's layers.
pub(crate) fn read_progress(
    path: &Path,
    hash: &str,
    key: &str,
    layers: &[(usize, usize)],
    scored_share: f64,
) -> Result<Option<(SiteProgress, Aside)>, Fatal> {
    let file = Reader::open(path, hash)?;
    Ok(file.and_then(|file| progress_in(&file, key, layers, scored_share)))
}

fn progress_in(
    file: &Reader,
    key: &str,
    layers: &[(usize, usize)],
    scored_share: f64,
) -> Option<(SiteProgress, Aside)> {
    let record: ProgressRecord = file.record()?;
    if record.key != key || record.layers.len() != layers.len() {
        return None;
    }
    let mut progress = SiteProgress {
        next_point: record.next_point,
        folding: record.folding,
        rows_at_last_solve: record.rows_at_last_solve,
        spared: record.spared,
        layers: Vec::new(),
    };
    for (index, (layer, &(m, n))) in record.layers.into_iter().zip(layers).enumerate() {
        let mut corrections = Vec::new();
        for (age, &rank) in layer.ranks.iter().enumerate() {
            let factor =
                |name: &str| file.f32(&format!("layer-{index}.correction-{age}.lora_{name}"));
            let (lora_a, lora_b) = (factor("a")?, factor("b")?);
            if lora_a.len() != rank * m || lora_b.len() != rank * n {
                return None;
            }
            corrections.push(WrittenCorrection {
                rank,
                lora_a: lora_a.to_vec(),
                lora_b: lora_b.to_vec(),
            });
        }
        let name = format!("layer-{index}.vectors");
        let columns = *file.claim(&name)?.shape.first()?;
        let values = file.f64(&name, columns * n)?;
        progress.layers.push(LayerProgress {
            corrections,
            vectors: Mat::from_fn(n, columns, |i, j| values[j * n + i]),
            evidence: layer.evidence,
            insensitive_to_rows: layer.insensitive_to_rows,
            solve: layer.solve,
            reference: layer.reference,
        });
    }
    let m = layers.first()?.0;
    let aside = Aside::restore(m, scored_share, &record.aside, &file.rows("aside")?)?;
    Some((progress, aside))
}
