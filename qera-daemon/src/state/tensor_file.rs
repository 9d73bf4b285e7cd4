//! A file of a snapshot: safetensors, with a record of what is no tensor in the header's metadata,
//! so that other programs can read the file, too.

use core::ops::Range;
use std::collections::{BTreeMap, HashMap};
use std::io::{Result as IoResult, Write};
use std::path::{Path, PathBuf};

use bytemuck::Pod;
use qera_core::dtype::FloatDtype;
use safetensors::Dtype;
use serde::Serialize;

use crate::calibrate::blocks::{BlocksRecord, DTYPES, SavedRows};
use crate::disk::new_file::NewFile;
use crate::disk::open_file::OpenFile;
use crate::error::Fatal;
use crate::formats::safetensors::header::{Claim, Header, HeaderError, dtype_name};
use crate::formats::safetensors::writer::{TensorPlan, WriteError, Writer};
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::stored::{StoredNumbers, StoredRows};
use crate::state::damage::{Damage, NoAnswer, Unread};

/// The metadata key of the record.
const SITE: &str = "qera.site";
/// Number of bytes written at a time.
const PIECE: usize = 1 << 18;

/// A tensor's numbers, in parts that follow each other.
pub(crate) enum Values<'a> {
    /// Numbers written as f64.
    F64(Vec<&'a [f64]>),
    /// Numbers written as f32.
    F32(Vec<&'a [f32]>),
    /// Rows written in the type in which they are kept.
    Rows(Vec<StoredRows<'a>>, FloatDtype),
}

/// A tensor to be written.
pub(crate) struct SavedTensor<'a> {
    /// The tensor's key in the file.
    pub(crate) name: String,
    /// The tensor's shape, row-major.
    pub(crate) shape: Vec<usize>,
    /// The tensor's numbers.
    pub(crate) values: Values<'a>,
}

impl<'a> SavedTensor<'a> {
    /// A tensor of numbers that lie in one piece.
    pub(crate) fn f64(name: &str, values: &'a [f64]) -> Self {
        Self {
            name: name.into(),
            shape: vec![values.len()],
            values: Values::F64(vec![values]),
        }
    }

    /// The same in f32.
    pub(crate) fn f32(name: &str, values: &'a [f32]) -> Self {
        Self {
            name: name.into(),
            shape: vec![values.len()],
            values: Values::F32(vec![values]),
        }
    }

    /// Tensors of rows: one for each type in which some are kept, and one of weights for each of
    /// these with weights.
    pub(crate) fn rows<I: Iterator<Item = StoredRows<'a>>>(
        name: &str,
        in_features: usize,
        rows: impl Fn() -> I,
    ) -> Vec<Self> {
        let of_dtype = |dtype: FloatDtype| {
            let own = rows().filter(|r| r.rows() > 0 && r.dtype() == dtype);
            let own: Vec<_> = own.collect();
            let count: usize = own.iter().map(StoredRows::rows).sum();
            (count > 0).then(|| Self {
                name: rows_name(name, dtype),
                shape: vec![count, in_features],
                values: Values::Rows(own, dtype),
            })
        };
        let weights = rows().filter_map(|rows| Some(rows.weights?.values()));
        let weights: Vec<&[f32]> = weights.collect();
        let weights = (!weights.is_empty()).then(|| Self {
            name: weights_name(name),
            shape: vec![weights.iter().map(|part| part.len()).sum()],
            values: Values::F32(weights),
        });
        let tensors = DTYPES.into_iter().filter_map(of_dtype);
        tensors.chain(weights).collect()
    }

    fn plan(&self) -> TensorPlan {
        TensorPlan {
            name: self.name.clone(),
            dtype: match self.values {
                Values::F64(_) => Dtype::F64,
                Values::F32(_) => Dtype::F32,
                Values::Rows(_, dtype) => dtype_name(dtype),
            },
            shape: self.shape.clone(),
        }
    }
}

/// Key of the rows of one type.
fn rows_name(name: &str, dtype: FloatDtype) -> String {
    format!("{name}.{}", dtype.name())
}

/// Key of the weights of rows.
fn weights_name(name: &str) -> String {
    format!("{name}.weight")
}

/// Writes a file that nobody else may read, and syncs it; returns its BLAKE3.
///
/// # Errors
/// [`Fatal::Io`]; [`Fatal::Unwritten`] for a tensor with other numbers than its shape says.
pub(crate) fn write(
    path: &Path,
    record: &impl Serialize,
    tensors: &[SavedTensor<'_>],
) -> Result<blake3::Hash, Fatal> {
    let record = serde_json::to_string(record).unwrap_or_default();
    let plans: Vec<_> = tensors.iter().map(SavedTensor::plan).collect();
    let failed = WriteError::of(path);
    let out = Hashed {
        out: NewFile::create_private(path)?,
        hasher: blake3::Hasher::new(),
    };
    let metadata = BTreeMap::from([(SITE, record)]);
    let mut writer = Writer::begin(out, &metadata, &plans).map_err(&failed)?;
    for tensor in tensors {
        match &tensor.values {
            Values::F64(parts) => parts
                .iter()
                .try_for_each(|p| put(p, |v| v.to_le_bytes(), &mut writer)),
            Values::F32(parts) => parts
                .iter()
                .try_for_each(|p| put(p, |v| v.to_le_bytes(), &mut writer)),
            Values::Rows(parts, _) => parts.iter().try_for_each(|rows| match rows.numbers {
                StoredNumbers::Floats(values) => put(values, |v| v.to_le_bytes(), &mut writer),
                StoredNumbers::Bytes(bytes, _) => writer.put(bytes),
            }),
        }
        .and_then(|()| writer.end())
        .map_err(&failed)?;
    }
    let Hashed { out, hasher } = writer.finish().map_err(&failed)?;
    out.sync()?;
    Ok(hasher.finalize())
}

/// A writer that hashes what it passes on to the file.
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

/// Writes numbers in little-endian order, which is the order in memory of most machines anyway.
fn put<T: Pod, const N: usize>(
    values: &[T],
    bytes: fn(T) -> [u8; N],
    writer: &mut Writer<'_, Hashed>,
) -> Result<(), WriteError> {
    if cfg!(target_endian = "little") {
        return values
            .chunks(PIECE / N)
            .try_for_each(|piece| writer.put(bytemuck::cast_slice(piece)));
    }
    let mut buffer = Vec::with_capacity(PIECE.min(values.len() * N));
    values.chunks(PIECE / N).try_for_each(|piece| {
        buffer.clear();
        piece.iter().for_each(|v| buffer.extend(bytes(*v)));
        writer.put(&buffer)
    })
}

/// A file whose content was checked against the hash in the index. Its tensors are in memory, each
/// until it is asked for.
#[derive(Debug)]
pub(crate) struct TensorFile {
    path: PathBuf,
    header: Header,
    /// The bytes of the tensors by their keys, in pieces.
    tensors: HashMap<String, Vec<PageVec<u8>>>,
}

/// The lengths of the pieces in which tensors are kept, in bytes, by the tensors' keys. What is
/// behind them, or is not named, is a piece of its own.
pub(crate) type Pieces = HashMap<String, Vec<usize>>;

/// The pieces of saved rows: the blocks of this record.
pub(crate) fn pieces_of(name: &str, in_features: usize, record: &BlocksRecord) -> Pieces {
    let of = |dtype| {
        (
            rows_name(name, dtype),
            record.block_bytes(in_features, dtype),
        )
    };
    DTYPES.into_iter().map(of).collect()
}

impl TensorFile {
    /// Opens the file, checks its content, and keeps the tensors that are wanted, in the pieces
    /// that `pieces` reads off the record. They are read once: what is hashed is what is kept.
    ///
    /// # Errors
    /// [`Unread::Damaged`] for anything that is not the file that was written. A disk that does not
    /// answer says nothing about the file: [`Unread::NoAnswer`].
    pub(crate) fn open(
        path: &Path,
        hash: &str,
        wanted: impl Fn(&str) -> bool,
        pieces: impl FnOnce(&[u8]) -> Pieces,
    ) -> Result<Self, Unread> {
        let damage = |what: &str| Damage(format!("{} {what}", path.display()));
        let unread = |error| Unread::from(NoAnswer::of(path, "read")(error));
        let file = OpenFile::open(path).map_err(|e| Unread::unopened(path, e))?;
        let length = file.identity().map_err(unread)?.bytes;
        let mut content = HashedContent {
            file: &file,
            hasher: blake3::Hasher::new(),
        };
        let header = match Header::read(file.reader(), length) {
            Ok(header) => Ok(header),
            Err(HeaderError::Io(error)) => return Err(unread(error)),
            Err(error) => Err(damage(&format!("is no safetensors file: {error}"))),
        };
        let tensors = match &header {
            Ok(header) => {
                let record = header.metadata.get(SITE);
                let pieces = record.map(|text| pieces(text.as_bytes()));
                content.tensors(header, length, wanted, &pieces.unwrap_or_default())
            }
            Err(_) => content.pass(0..length).map(|()| HashMap::new()),
        };
        let tensors = tensors.map_err(unread)?;
        if content.hasher.finalize().to_hex().as_str() != hash {
            return Err(damage("is not the file that the index names").into());
        }
        Ok(Self {
            path: path.to_path_buf(),
            header: header?,
            tensors,
        })
    }

    /// Damage of this file, in these words.
    pub(crate) fn damage(&self, what: &str) -> Damage {
        Damage(format!("{}: {what}", self.path.display()))
    }

    /// The record of what is no tensor, as `parse` reads it.
    ///
    /// # Errors
    /// [`Damage`] where it is missing or another.
    pub(crate) fn record<T>(
        &self,
        parse: fn(&[u8]) -> Result<T, serde_json::Error>,
    ) -> Result<T, Damage> {
        let Some(text) = self.header.metadata.get(SITE) else {
            return Err(self.damage(&format!("has no {SITE}")));
        };
        parse(text.as_bytes()).map_err(|e| self.damage(&format!("{SITE}: {e}")))
    }

    /// The header's entry of a tensor.
    ///
    /// # Errors
    /// [`Damage`] where there is none.
    pub(crate) fn claim(&self, name: &str) -> Result<&Claim, Damage> {
        let found = self.header.claims.iter().find(|c| c.key == name);
        found.ok_or_else(|| self.damage(&format!("has no tensor '{name}'")))
    }

    /// The bytes of a tensor.
    fn pieces(&mut self, name: &str) -> Result<Vec<PageVec<u8>>, Damage> {
        let found = self.tensors.remove(name);
        found.ok_or_else(|| self.damage(&format!("has no tensor '{name}'")))
    }

    fn values<T: Pod, const N: usize>(
        &mut self,
        name: &str,
        value: fn([u8; N]) -> T,
    ) -> Result<PageVec<T>, Damage> {
        let mut values = match self.pieces(name)?.into_iter().next() {
            Some(bytes) => bytes.into_numbers(),
            None => PageVec::unwritten(0),
        };
        if cfg!(target_endian = "big") {
            for to in values.iter_mut() {
                let mut bytes = [0; N];
                bytes.copy_from_slice(bytemuck::bytes_of(to));
                *to = value(bytes);
            }
        }
        Ok(values)
    }

    /// The numbers of an f64 tensor of this length.
    ///
    /// # Errors
    /// [`Damage`] where there is none, or it has another length.
    pub(crate) fn f64(&mut self, name: &str, length: usize) -> Result<PageVec<f64>, Damage> {
        let values = self.values(name, f64::from_le_bytes)?;
        self.of_length(name, length, values)
    }

    /// The numbers of an f32 tensor.
    ///
    /// # Errors
    /// [`Damage`] where there is none.
    pub(crate) fn f32(&mut self, name: &str) -> Result<PageVec<f32>, Damage> {
        self.values(name, f32::from_le_bytes)
    }

    /// The numbers of an f32 tensor of this length.
    ///
    /// # Errors
    /// [`Damage`] where there is none, or it has another length.
    pub(crate) fn f32_of(&mut self, name: &str, length: usize) -> Result<PageVec<f32>, Damage> {
        let values = self.f32(name)?;
        self.of_length(name, length, values)
    }

    /// The rows of each type, with their weights.
    ///
    /// # Errors
    /// [`Damage`] for a tensor of another type than its name says.
    pub(crate) fn rows(&mut self, name: &str) -> Result<SavedRows, Damage> {
        let mut saved = SavedRows::default();
        for (dtype, bytes) in DTYPES.into_iter().zip(&mut saved.bytes) {
            let name = rows_name(name, dtype);
            let claim = self.header.claims.iter().find(|c| c.key == name);
            let Some(claim) = claim else {
                continue;
            };
            if claim.dtype != dtype_name(dtype) {
                let found = claim.dtype;
                return Err(self.damage(&format!("tensor '{name}' is of type {found}")));
            }
            *bytes = self.pieces(&name)?;
        }
        let weights = weights_name(name);
        if self.header.claims.iter().any(|c| c.key == weights) {
            saved.weights = self.f32(&weights)?.to_vec();
        }
        Ok(saved)
    }

    fn of_length<T: Pod>(
        &self,
        name: &str,
        length: usize,
        values: PageVec<T>,
    ) -> Result<PageVec<T>, Damage> {
        if values.len() == length {
            return Ok(values);
        }
        let found = values.len();
        Err(self.damage(&format!(
            "tensor '{name}' has {found} numbers, {length} expected"
        )))
    }
}

/// A file that is read, every byte of it hashed.
struct HashedContent<'f> {
    file: &'f OpenFile,
    hasher: blake3::Hasher,
}

impl HashedContent<'_> {
    /// Reads the whole file; returns the tensors that are wanted.
    fn tensors(
        &mut self,
        header: &Header,
        length: u64,
        wanted: impl Fn(&str) -> bool,
        pieces: &Pieces,
    ) -> IoResult<HashMap<String, Vec<PageVec<u8>>>> {
        let mut tensors = HashMap::new();
        let mut read_to = 0;
        // They lie in this order, one behind the other.
        for claim in header.claims.iter().filter(|claim| wanted(&claim.key)) {
            self.pass(read_to..claim.start)?;
            read_to = claim.start;
            let (mut left, mut kept) = (claim.bytes, Vec::new());
            let lengths = pieces.get(&claim.key).into_iter().flatten();
            for length in lengths.copied().chain([usize::MAX]) {
                // The record is not checked yet: no more is kept than the file has.
                let mut bytes = PageVec::unwritten(length.min(left));
                self.fill(&mut bytes, read_to)?;
                left -= bytes.len();
                read_to += bytes.len() as u64;
                kept.push(bytes);
            }
            tensors.insert(claim.key.clone(), kept);
        }
        self.pass(read_to..length)?;
        Ok(tensors)
    }

    /// Reads bytes that nobody wants.
    fn pass(&mut self, bytes: Range<u64>) -> IoResult<()> {
        let mut buffer = vec![0; PIECE];
        let mut start = bytes.start;
        while start < bytes.end {
            let count = usize::try_from(bytes.end - start).map_or(PIECE, |count| count.min(PIECE));
            self.fill(&mut buffer[..count], start)?;
            start += count as u64;
        }
        Ok(())
    }

    /// Fills a buffer with bytes from `start` on; each piece is hashed while it is in the cache.
    fn fill(&mut self, buffer: &mut [u8], mut start: u64) -> IoResult<()> {
        for piece in buffer.chunks_mut(PIECE) {
            self.file.read_exact_at(piece, start)?;
            self.hasher.update(piece);
            start += piece.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(unread: Unread) -> String {
        match unread {
            Unread::Damaged(damage) => damage.to_string(),
            other => panic!("no damage: {other}"),
        }
    }

    #[test]
    fn what_was_saved_reads_back_and_every_damage_names_the_file() {
        let name = format!("qera-tensors-{}.safetensors", std::process::id());
        let path = std::env::temp_dir().join(&name);
        // More numbers than fit in one piece, of each type.
        let f64s: Vec<f64> = (0..40_000).map(f64::from).collect();
        let f32s = [1.5_f32, -2.0, 3.0, 0.25];
        let tensors = [
            SavedTensor::f64("a", &f64s),
            SavedTensor {
                name: "b".into(),
                shape: vec![2, 2],
                values: Values::F32(vec![&f32s[..1], &f32s[1..]]),
            },
        ];
        let hash = write(&path, &"the record", &tensors).unwrap().to_hex();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(blake3::hash(&bytes).to_hex(), hash);

        let all = |_: &str| true;
        let whole = |_: &[u8]| Pieces::new();
        let mut file = TensorFile::open(&path, &hash, all, whole).unwrap();
        assert_eq!(file.f64("a", f64s.len()).unwrap()[..], f64s[..]);
        assert_eq!(file.f32("b").unwrap()[..], f32s[..]);
        // A tensor that is not wanted is not there, and is checked like the others.
        let mut one = TensorFile::open(&path, &hash, |name| name == "b", whole).unwrap();
        assert!(one.f64("a", f64s.len()).is_err());
        assert_eq!(one.f32("b").unwrap()[..], f32s[..]);
        // Pieces are as long as the tensor has bytes for them; together they are the tensor.
        let cut = |_: &[u8]| Pieces::from([("a".into(), vec![8, 0, 300_000, usize::MAX, 1])]);
        let mut file = TensorFile::open(&path, &hash, all, cut).unwrap();
        let pieces = file.pieces("a").unwrap();
        let lengths = pieces.iter().map(|piece| piece.len());
        assert!(lengths.eq([8, 0, 300_000, 19_992, 0, 0]));
        let together: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        assert_eq!(together[..], *bytemuck::cast_slice::<_, u8>(&f64s));
        let mut file = TensorFile::open(&path, &hash, all, whole).unwrap();
        let record = |bytes: &[u8]| serde_json::from_slice::<String>(bytes);
        assert_eq!(file.record(record).unwrap(), "the record");
        let number = |bytes: &[u8]| serde_json::from_slice::<u64>(bytes);
        let damages = [
            file.f64("c", 1).unwrap_err(),
            file.f64("a", 1).unwrap_err(),
            file.f32_of("b", 5).unwrap_err(),
            file.record(number).unwrap_err(),
        ];
        let damages = damages.map(|damage| damage.to_string());
        for (damage, said) in damages
            .iter()
            .zip(["'c'", "40000 numbers", "4 numbers", SITE])
        {
            assert!(damage.contains(said) && damage.contains(&name), "{damage}");
        }

        // A file that is shorter, one of which a number is another, and one of another header.
        let mut others = vec![bytes[..bytes.len() - 1].to_vec()];
        for at in [bytes.len() - 1, 40_000, 8] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            others.push(other);
        }
        for other in others {
            std::fs::write(&path, other).unwrap();
            for wanted in ["a", "b", "none"] {
                let opened = TensorFile::open(&path, &hash, |name| name == wanted, whole);
                let damage = message(opened.unwrap_err());
                assert!(damage.contains("is not the file") && damage.contains(&name));
            }
        }
        std::fs::remove_file(&path).unwrap();
        let damage = message(TensorFile::open(&path, &hash, all, whole).unwrap_err());
        assert!(damage.contains("is missing"), "{damage}");
    }
}
