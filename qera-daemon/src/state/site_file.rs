//! A site's statistics and progress as safetensors files, so that other programs can read them too.
//!
//! The statistics' bytes are a function of the journal alone, unless rows were left out after convergence; what else depends on checkpoint and settings (rows kept aside,
//! corrections, vectors, evidence) is in a file of its own.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use bytemuck::Pod;
use faer::Mat;
use qera_core::packed::packed_len;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::calibrate::aside::{Aside, AsideRecord};
use crate::calibrate::site::SiteStatistics;
use crate::calibrate::window::{BlocksRecord, Window};
use crate::disk::new_file::NewFile;
use crate::disk::open_file::OpenFile;
use crate::error::Fatal;
use crate::formats::safetensors::header::{Claim, Header};
use crate::formats::safetensors::writer::{TensorPlan, WriteError, Writer};
use crate::host::kernels::page_vec::PageVec;
use crate::judge::evidence::{Evidence, WrittenCorrection};
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
    let channels = |values| Values::F64(vec![values]);
    let rows: Vec<&[f32]> = statistics.window.all_rows().collect();
    let held = rows.iter().map(|r| r.len()).sum::<usize>() / m;
    let tensors: Tensors<'_> = vec![
        (
            "autocorrelation".into(),
            vec![statistics.autocorrelation.len()],
            channels(&statistics.autocorrelation),
        ),
        ("batch_max".into(), vec![m], channels(&statistics.batch_max)),
        ("m2".into(), vec![m], channels(&statistics.m2)),
        ("mean".into(), vec![m], channels(&statistics.mean)),
        ("mean_abs".into(), vec![m], channels(&statistics.mean_abs)),
        ("window".into(), vec![held, m], Values::F32(rows)),
    ];
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
    let rows: Vec<&[f32]> = statistics.aside.all_rows().collect();
    let kept = rows.iter().map(|r| r.len()).sum::<usize>() / m;
    let mut tensors: Tensors<'_> = vec![("aside".into(), vec![kept, m], Values::F32(rows))];
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
            },
            shape: shape.clone(),
        })
        .collect();
    let failed = WriteError::of(path);
    let out = Hashed {
        out: NewFile::create(path)?,
        hasher: blake3::Hasher::new(),
    };
    let metadata = BTreeMap::from([(SITE, record)]);
    let mut writer = Writer::begin(out, &metadata, &plans).map_err(&failed)?;
    for (_, _, values) in tensors {
        match values {
            Values::F64(parts) => parts
                .iter()
                .try_for_each(|p| put(p, |v| v.to_le_bytes(), &mut writer)),
            Values::F32(parts) => parts
                .iter()
                .try_for_each(|p| put(p, |v| v.to_le_bytes(), &mut writer)),
        }
        .and_then(|()| writer.end())
        .map_err(&failed)?;
    }
    let Hashed { out, hasher } = writer.finish().map_err(&failed)?;
    out.sync()?;
    Ok(hasher.finalize())
}

/// What is written to a file goes through its hash.
struct Hashed {
    out: NewFile,
    hasher: blake3::Hasher,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

fn put<T: Copy, const N: usize>(
    values: &[T],
    bytes: fn(T) -> [u8; N],
    writer: &mut Writer<'_, Hashed>,
) -> Result<(), WriteError> {
    let mut buffer = Vec::with_capacity(PIECE.min(values.len() * N));
    values.chunks(PIECE / N).try_for_each(|piece| {
        buffer.clear();
        piece.iter().for_each(|v| buffer.extend(bytes(*v)));
        writer.put(&buffer)
    })
}

/// A file of a snapshot, its content checked against the hash in the index.
struct Reader {
    file: OpenFile,
    header: Header,
}

impl Reader {
    /// `None` for anything that is not the file that was written. A disk that does not answer says nothing about the file.
    fn open(path: &Path, hash: &str) -> Result<Option<Self>, Fatal> {
        let file = match OpenFile::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Fatal::io(path, "open")(e)),
        };
        let mut hasher = blake3::Hasher::new();
        hasher
            .update_reader(file.reader())
            .map_err(Fatal::io(path, "read"))?;
        if hasher.finalize().to_hex().as_str() != hash {
            return Ok(None);
        }
        // Its length is that of the bytes that were hashed.
        let bytes = hasher.count();
        let header = Header::read(file.reader(), bytes);
        Ok(header.ok().map(|header| Self { file, header }))
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
    let packed = if keeps_r { packed_len(m) } else { 0 };
    Some(SiteStatistics {
        in_features: m,
        autocorrelation: Arc::new(file.f64("autocorrelation", packed)?),
        mean: file.f64("mean", m)?.to_vec(),
        m2: file.f64("m2", m)?.to_vec(),
        mean_abs: file.f64("mean_abs", m)?.to_vec(),
        batch_max: file.f64("batch_max", m)?.to_vec(),
        window: Window::restore(m, &record.window, &file.f32("window")?)?,
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
    let aside = Aside::restore(m, scored_share, &record.aside, &file.f32("aside")?)?;
    Some((progress, aside))
}
