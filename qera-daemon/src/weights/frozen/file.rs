//! The file of one layer's W~: codes, steps and lowest integers as tensors, and the record with a
//! checksum in the header's metadata. It is a safetensors file, so that other programs can read it,
//! too.

use core::fmt;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytemuck::cast_slice_mut;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::disk;
use crate::disk::new_file::NewFile;
use crate::disk::open_file::OpenFile;
use crate::disk::{TEMPORARY, sync};
use crate::error::Fatal;
use crate::formats::safetensors::header::{Claim, Header, HeaderError};
use crate::formats::safetensors::writer::{TensorPlan, WriteError, Writer};
use crate::host::kernels::page_vec::PageVec;
use crate::weights::frozen::packed::{PackedLayer, PackedShape};
use crate::weights::frozen::record::RoundingRecord;

/// Version of these files.
const VERSION: u32 = 1;
/// The metadata keys of record and checksum.
const RECORD: &str = "qera.rounded";
const CHECKSUM: &str = "qera.rounded.checksum";
const CODES: &str = "codes";
const STEPS: &str = "steps";
const LOWEST: &str = "lowest";
/// A file is called after its layer if the name is no longer than this.
const NAME_MAX: usize = 160;
/// What to do about a W~ that cannot be used.
const WHAT_TO_DO: &str = "choose another --state, or have `solve --round-again` make others";

/// W~ of a layer, with what it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RoundedWeight {
    /// Module path.
    pub(crate) layer: String,
    /// Fingerprint of W.
    pub(crate) weight: String,
    /// How W~ was made.
    pub(crate) record: RoundingRecord,
    /// W~.
    pub(crate) packed: PackedLayer,
}

/// The contents of the file of a W~, without its codes.
#[derive(Debug)]
pub(crate) struct FoundRounding {
    /// Fingerprint of W.
    pub(crate) weight: String,
    /// How W~ was made.
    pub(crate) record: RoundingRecord,
}

/// The content of the metadata.
#[derive(Debug, Serialize, Deserialize)]
struct FileRecord {
    version: u32,
    layer: String,
    weight: String,
    in_features: usize,
    out_features: usize,
    bits: u32,
    rounding: RoundingRecord,
}

/// Why a file is not read as W~.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("is no safetensors file: {0}")]
    Header(#[from] HeaderError),
    #[error("has no '{0}' in its metadata")]
    Missing(&'static str),
    #[error("its record is damaged")]
    Record,
    #[error("its record cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("has version {0}, this program reads version {VERSION}")]
    Version(u32),
    #[error("is of layer '{0}'")]
    Layer(String),
    #[error("is of a weight [{out_features}, {in_features}], which the layer's is not")]
    Shape {
        out_features: usize,
        in_features: usize,
    },
    #[error("has no tensor '{name}' of {bytes} bytes of {dtype}")]
    Tensor {
        name: &'static str,
        bytes: usize,
        dtype: Dtype,
    },
    #[error("its codes are damaged: their digest is {found}, the record has {expected}")]
    Digest { found: String, expected: String },
}

/// The file of a layer in a folder. It is called after the layer, or by a hash where the layer's
/// name is no file name.
#[must_use]
pub(crate) fn path_of(folder: &Path, layer: &str) -> PathBuf {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let may_be_a_name = layer.chars().all(plain) && layer.len() <= NAME_MAX;
    let stem = if may_be_a_name && !layer.starts_with('.') {
        layer.to_owned()
    } else {
        format!("layer-{}", blake3::hash(layer.as_bytes()).to_hex())
    };
    folder.join(format!("{stem}.safetensors"))
}

/// Writes W~ beside its place, syncs it, renames it into place, and syncs the folder; returns its
/// path.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn write(folder: &Path, of: &RoundedWeight) -> Result<PathBuf, Fatal> {
    let path = path_of(folder, &of.layer);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = folder.join(format!("{TEMPORARY}{name}"));
    write_to(&unfinished, of)?;
    disk::rename(&unfinished, &path).map_err(Fatal::io(&path, "rename into place"))?;
    sync(folder)?;
    Ok(path)
}

fn write_to(path: &Path, of: &RoundedWeight) -> Result<(), Fatal> {
    let PackedLayer {
        shape,
        bits,
        codes,
        steps,
        lowest,
    } = &of.packed;
    let record = FileRecord {
        version: VERSION,
        layer: of.layer.clone(),
        weight: of.weight.clone(),
        in_features: shape.in_features,
        out_features: shape.out_features,
        bits: *bits,
        rounding: of.record.clone(),
    };
    // Plain structures of numbers and strings always serialize.
    let record = serde_json::to_string(&record).unwrap_or_default();
    let metadata = BTreeMap::from([(CHECKSUM, checksum(&record)), (RECORD, record)]);
    let plan = |name: &str, dtype, shape: Vec<usize>| TensorPlan {
        name: name.into(),
        dtype,
        shape,
    };
    let (n, blocks) = (shape.out_features, shape.blocks());
    let of_lowest = match lowest.len() {
        1 => vec![1],
        _ => vec![n, blocks],
    };
    let plans = [
        plan(STEPS, Dtype::F32, vec![n, blocks]),
        plan(LOWEST, Dtype::F32, of_lowest),
        plan(CODES, Dtype::U8, vec![n, shape.row_bytes(*bits)]),
    ];
    let failed = WriteError::of(path);
    let mut writer = Writer::begin(NewFile::create(path)?, &metadata, &plans).map_err(&failed)?;
    for numbers in [steps, lowest] {
        let put = numbers
            .iter()
            .try_for_each(|number| writer.put(&number.to_le_bytes()));
        put.and_then(|()| writer.end()).map_err(&failed)?;
    }
    writer.tensor(codes).map_err(&failed)?;
    writer.finish().map_err(&failed)?.sync()
}

/// The layer that a file must belong to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpectedLayer<'a> {
    /// Module path.
    pub(crate) layer: &'a str,
    /// in_features m.
    pub(crate) in_features: usize,
    /// out_features n.
    pub(crate) out_features: usize,
}

/// Reads and checks a layer's whole file; `None` where there is none.
///
/// # Errors
/// [`Fatal::StateRefused`] with what is wrong with the file, and [`Fatal::Io`].
pub(crate) fn read(
    path: &Path,
    expected: ExpectedLayer<'_>,
) -> Result<Option<RoundedWeight>, Fatal> {
    match read_checked(path, expected) {
        Ok(found) => Ok(Some(found)),
        Err(Unreadable::Io(e)) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(Unreadable::Io(e)) => Err(Fatal::io(path, "read")(e)),
        Err(why) => Err(refuse(
            path,
            expected.layer,
            &format!("{why}; put back the file that was there"),
        )),
    }
}

/// The error that ends the run where a W~ cannot be used.
pub(crate) fn refuse(path: &Path, layer: &str, why: &dyn fmt::Display) -> Fatal {
    Fatal::StateRefused {
        path: path.to_path_buf(),
        reason: format!("W~ of layer {layer}: {why}, {WHAT_TO_DO}"),
    }
}

/// What a layer's file says, without reading its codes; `None` where that cannot be read.
#[must_use]
pub(crate) fn record_of(path: &Path, expected: ExpectedLayer<'_>) -> Option<FoundRounding> {
    let file = OpenFile::open(path).ok()?;
    let header = Header::read(file.reader(), file.identity().ok()?.bytes).ok()?;
    let record = checked_record(&header).ok()?;
    check(&record, expected).ok()?;
    Some(FoundRounding {
        weight: record.weight,
        record: record.rounding,
    })
}

fn checked_record(header: &Header) -> Result<FileRecord, Unreadable> {
    let metadata = |key| header.metadata.get(key).ok_or(Unreadable::Missing(key));
    let text = metadata(RECORD)?;
    if checksum(text) != *metadata(CHECKSUM)? {
        return Err(Unreadable::Record);
    }
    Ok(serde_json::from_str(text)?)
}

fn read_checked(path: &Path, expected: ExpectedLayer<'_>) -> Result<RoundedWeight, Unreadable> {
    let file = OpenFile::open(path)?;
    let length = file.identity()?.bytes;
    let header = Header::read(file.reader(), length)?;
    let record = checked_record(&header)?;
    let shape = check(&record, expected)?;
    let (n, blocks) = (shape.out_features, shape.blocks());
    let numbers = |name, count: usize| -> Result<PageVec<f32>, Unreadable> {
        let claim = claim(&header, name, Dtype::F32, count * size_of::<f32>())?;
        let mut numbers = PageVec::zeroed(count);
        file.read_exact_at(cast_slice_mut(&mut numbers), claim.start)?;
        Ok(numbers)
    };
    let steps = numbers(STEPS, n * blocks)?;
    let lowest = numbers(LOWEST, 1).or_else(|_| numbers(LOWEST, n * blocks))?;
    let codes_bytes = n * shape.row_bytes(record.bits);
    let claim = claim(&header, CODES, Dtype::U8, codes_bytes)?;
    let mut codes = PageVec::zeroed(codes_bytes);
    file.read_exact_at(&mut codes, claim.start)?;
    let native = |of: PageVec<f32>| -> Vec<f32> {
        let bits = of.iter().map(|x| u32::from_le(x.to_bits()));
        bits.map(f32::from_bits).collect()
    };
    let packed = PackedLayer {
        shape,
        bits: record.bits,
        codes,
        steps: native(steps),
        lowest: native(lowest),
    };
    let found = packed.digest();
    if found != record.rounding.digest {
        return Err(Unreadable::Digest {
            found,
            expected: record.rounding.digest,
        });
    }
    Ok(RoundedWeight {
        layer: record.layer,
        weight: record.weight,
        record: record.rounding,
        packed,
    })
}

/// Checks that the record belongs to this layer; returns the shape of W~.
fn check(record: &FileRecord, expected: ExpectedLayer<'_>) -> Result<PackedShape, Unreadable> {
    let &FileRecord {
        version,
        in_features,
        out_features,
        bits,
        ..
    } = record;
    if version != VERSION {
        return Err(Unreadable::Version(version));
    }
    if record.layer != expected.layer {
        return Err(Unreadable::Layer(record.layer.clone()));
    }
    if [in_features, out_features] != [expected.in_features, expected.out_features] {
        return Err(Unreadable::Shape {
            out_features,
            in_features,
        });
    }
    if !(1..=u8::BITS).contains(&bits) || record.rounding.block_size == 0 {
        return Err(Unreadable::Record);
    }
    Ok(PackedShape {
        in_features,
        out_features,
        block_size: record.rounding.block_size,
    })
}

fn claim<'h>(
    header: &'h Header,
    name: &'static str,
    dtype: Dtype,
    bytes: usize,
) -> Result<&'h Claim, Unreadable> {
    let found = header.claims.iter().find(|claim| claim.key == name);
    let found = found.filter(|claim| claim.dtype == dtype && claim.bytes == bytes);
    found.ok_or(Unreadable::Tensor { name, bytes, dtype })
}

fn checksum(record: &str) -> String {
    format!("blake3:{}", blake3::hash(record.as_bytes()).to_hex())
}
