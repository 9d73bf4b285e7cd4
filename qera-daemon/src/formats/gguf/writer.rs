//! A GGUF writer that holds no tensor: their bytes are passed to it one after another, in the order
//! of the plan. What it writes has passed the checks of [`GgufHeader`], and the same plan gives the
//! same bytes. Keys and values are given, or copied from another file as they are.

use core::fmt;
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::error::Fatal;
use crate::formats::gguf::cursor::Cursor;
use crate::formats::gguf::error::{GgufError, GgufPlace, GgufProblem};
use crate::formats::gguf::header::{ALIGNMENT_KEY, GgufHeader, MAGIC, alignment};
use crate::formats::gguf::metadata::{Metadata, StoredEntry};
use crate::formats::gguf::shape::Shape;

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 18;
/// The version that is written.
const VERSION: u32 = 3;
/// The longest name of a tensor that llama.cpp reads: 64 bytes with the final NUL.
const NAME_MAX: usize = 63;

/// A value that is to be written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MetadataValue {
    /// A string.
    Text(String),
    /// A number.
    U32(u32),
    /// A number that need not be whole.
    F32(f32),
    /// An array of strings.
    Texts(Vec<String>),
}

/// Keys and values in the bytes of a file.
#[derive(Debug, Clone, Default)]
pub(crate) struct MetadataBytes {
    bytes: Vec<u8>,
    count: u64,
}

/// Name, dimensions and type of a tensor to be written.
#[derive(Debug, Clone)]
pub(crate) struct GgufTensorPlan {
    /// Name in the file.
    pub(crate) name: String,
    /// Dimensions, the one along memory first.
    pub(crate) ne: Vec<usize>,
    /// Number of its type in ggml.
    pub(crate) type_number: u32,
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GgufWriteError {
    /// Writing failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The planned file could not be read by any reader.
    #[error("{0}")]
    Plan(#[from] GgufError),
    /// A tensor got another number of bytes than planned. This is a defect of the caller.
    #[error("tensor '{tensor}': {planned} bytes planned, {written} written")]
    Length {
        /// The tensor's name.
        tensor: String,
        /// The planned number of bytes.
        planned: usize,
        /// The number of bytes that came.
        written: usize,
    },
}

impl GgufWriteError {
    /// The error that ends the run, with the file's path.
    pub(crate) fn of(path: &Path) -> impl Fn(Self) -> Fatal {
        move |error| match error {
            Self::Io(error) => Fatal::io(path, "write")(error),
            Self::Plan(error) => Fatal::Checkpoint {
                path: path.to_path_buf(),
                reason: error.to_string(),
            },
            Self::Length {
                tensor,
                planned,
                written,
            } => Fatal::Unwritten {
                path: path.to_path_buf(),
                tensor,
                planned,
                written,
            },
        }
    }
}

/// A tensor that is still to be written.
#[derive(Debug)]
struct Planned<'p> {
    name: &'p str,
    dimensions: u32,
    bytes: usize,
}

/// Writes tensors.
pub(crate) struct GgufWriter<'p, W: Write> {
    out: BufWriter<W>,
    /// Tensors that are still to be written; the last is the current one.
    planned: Vec<Planned<'p>>,
    /// Number of bytes written of the current tensor.
    written: usize,
    /// Every tensor begins at a multiple of this.
    alignment: usize,
}

impl MetadataBytes {
    /// Appends a key with a value.
    pub(crate) fn put(&mut self, key: &str, value: &MetadataValue) {
        put_string(&mut self.bytes, key);
        put_value(&mut self.bytes, value);
        self.count += 1;
    }

    /// Appends an entry of another file; this may be its alignment.
    pub(crate) fn copy(&mut self, entry: &StoredEntry<'_>) {
        self.bytes.extend(entry.bytes);
        self.count += 1;
    }

    fn alignment(&self) -> Result<usize, GgufError> {
        let metadata = Metadata::parse(&mut Cursor::new(&self.bytes), self.count)?;
        // The alignment is at most 2^20.
        alignment(&metadata).map(|of| usize::try_from(of).unwrap_or(usize::MAX))
    }
}

impl<W: Write> fmt::Debug for GgufWriter<'_, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GgufWriter")
            .field("planned", &self.planned)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl<'p, W: Write> GgufWriter<'p, W> {
    /// Writes the header.
    ///
    /// # Errors
    /// [`GgufWriteError::Plan`] for what a reader would refuse (names that occur twice, dimensions
    /// that do not fit the type), for a type of unknown size, and for a key of the alignment;
    /// [`GgufWriteError::Io`].
    pub(crate) fn begin(
        out: W,
        metadata: &BTreeMap<&str, MetadataValue>,
        plans: &'p [GgufTensorPlan],
    ) -> Result<Self, GgufWriteError> {
        let mut bytes = MetadataBytes::default();
        for (&key, value) in metadata {
            if key == ALIGNMENT_KEY {
                return Err(GgufPlace::key(key).is(GgufProblem::AlignmentWritten).into());
            }
            bytes.put(key, value);
        }
        Self::begin_with(out, &bytes, plans)
    }

    /// Writes the header of a file with these keys and values, and with the alignment that they
    /// state.
    ///
    /// # Errors
    /// The file cannot be written, as for [`begin`](Self::begin), or the alignment is invalid.
    pub(crate) fn begin_with(
        out: W,
        metadata: &MetadataBytes,
        plans: &'p [GgufTensorPlan],
    ) -> Result<Self, GgufWriteError> {
        let planned = plans.iter().map(Planned::new);
        let mut planned = planned.collect::<Result<Vec<_>, _>>()?;
        let alignment = metadata.alignment()?;
        let header = header(metadata, plans, &planned, alignment)?;
        let mut out = BufWriter::with_capacity(BUFFER, out);
        out.write_all(&header)?;
        planned.reverse();
        Ok(Self {
            out,
            planned,
            written: 0,
            alignment,
        })
    }

    /// Appends bytes of the current tensor.
    ///
    /// # Errors
    /// [`GgufWriteError::Length`] where they are more than planned, [`GgufWriteError::Io`].
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), GgufWriteError> {
        self.written = self.written.saturating_add(bytes.len());
        if self.planned().bytes < self.written {
            return Err(self.unlike());
        }
        Ok(self.out.write_all(bytes)?)
    }

    /// Ends the current tensor, and pads up to the next one.
    ///
    /// # Errors
    /// [`GgufWriteError::Length`] where it was given another number of bytes than planned,
    /// [`GgufWriteError::Io`].
    pub(crate) fn end(&mut self) -> Result<(), GgufWriteError> {
        if self.planned.is_empty() || self.planned().bytes != self.written {
            return Err(self.unlike());
        }
        self.planned.pop();
        let written = core::mem::take(&mut self.written);
        Ok(self.out.write_all(&padding(written, self.alignment))?)
    }

    /// Writes a whole tensor.
    ///
    /// # Errors
    /// The tensor cannot be written, as for [`put`](Self::put) and [`end`](Self::end).
    pub(crate) fn tensor(&mut self, bytes: &[u8]) -> Result<(), GgufWriteError> {
        self.put(bytes)?;
        self.end()
    }

    /// Ends the file, and returns the writer beneath.
    ///
    /// # Errors
    /// [`GgufWriteError::Io`], and [`GgufWriteError::Length`] for a tensor that is missing.
    pub(crate) fn finish(self) -> Result<W, GgufWriteError> {
        if !self.planned.is_empty() {
            return Err(self.unlike());
        }
        Ok(self.out.into_inner().map_err(|e| e.into_error())?)
    }

    /// The current tensor.
    fn planned(&self) -> &Planned<'p> {
        self.planned.last().unwrap_or(&Planned {
            name: "after the last one",
            dimensions: 0,
            bytes: 0,
        })
    }

    fn unlike(&self) -> GgufWriteError {
        let planned = self.planned();
        GgufWriteError::Length {
            tensor: planned.name.to_owned(),
            planned: planned.bytes,
            written: self.written,
        }
    }
}

impl<'p> Planned<'p> {
    fn new(plan: &'p GgufTensorPlan) -> Result<Self, GgufError> {
        let refused = |problem| GgufPlace::tensor(&plan.name).is(problem);
        if !(1..=NAME_MAX).contains(&plan.name.len()) {
            return Err(refused(GgufProblem::NameLength {
                bytes: plan.name.len() as u64,
                most: NAME_MAX as u64,
            }));
        }
        // A number of dimensions that is no u32 is no number of dimensions either.
        let dimensions = u32::try_from(plan.ne.len()).unwrap_or(u32::MAX);
        Shape::check_count(dimensions).map_err(refused)?;
        let ne: Vec<u64> = plan.ne.iter().map(|&n| n as u64).collect();
        let shape = Shape::checked(&ne, plan.type_number).map_err(refused)?;
        let unknown = || refused(GgufProblem::TypeUnknown(plan.type_number));
        Ok(Self {
            name: &plan.name,
            dimensions,
            bytes: shape.bytes.ok_or_else(unknown)?,
        })
    }
}

/// The header, padded up to the data.
///
/// # Errors
/// The header is one that a reader would refuse.
fn header(
    metadata: &MetadataBytes,
    plans: &[GgufTensorPlan],
    planned: &[Planned<'_>],
    alignment: usize,
) -> Result<Vec<u8>, GgufError> {
    let mut header = MAGIC.to_vec();
    header.extend(VERSION.to_le_bytes());
    header.extend((plans.len() as u64).to_le_bytes());
    header.extend(metadata.count.to_le_bytes());
    header.extend(&metadata.bytes);
    let mut offset: u64 = 0;
    for (plan, planned) in plans.iter().zip(planned) {
        put_string(&mut header, &plan.name);
        header.extend(planned.dimensions.to_le_bytes());
        header.extend(plan.ne.iter().flat_map(|&n| (n as u64).to_le_bytes()));
        header.extend(plan.type_number.to_le_bytes());
        header.extend(offset.to_le_bytes());
        let bytes = (planned.bytes as u64).next_multiple_of(alignment as u64);
        offset = offset.saturating_add(bytes);
    }
    GgufHeader::parse_without_data(&header)?;
    let length = header.len();
    header.extend(padding(length, alignment));
    Ok(header)
}

fn put_string(header: &mut Vec<u8>, text: &str) {
    header.extend((text.len() as u64).to_le_bytes());
    header.extend(text.as_bytes());
}

/// Appends a value after the number of its type.
fn put_value(header: &mut Vec<u8>, value: &MetadataValue) {
    const U32: u32 = 4;
    const F32: u32 = 6;
    const TEXT: u32 = 8;
    const ARRAY: u32 = 9;
    let put = |header: &mut Vec<u8>, numbers: &[u32]| {
        header.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    };
    match value {
        MetadataValue::Text(text) => {
            put(header, &[TEXT]);
            put_string(header, text);
        }
        MetadataValue::U32(number) => put(header, &[U32, *number]),
        MetadataValue::F32(number) => put(header, &[F32, number.to_bits()]),
        MetadataValue::Texts(texts) => {
            put(header, &[ARRAY, TEXT]);
            header.extend((texts.len() as u64).to_le_bytes());
            for text in texts {
                put_string(header, text);
            }
        }
    }
}

/// Zeros that pad this many bytes up to the next multiple.
fn padding(written: usize, alignment: usize) -> Vec<u8> {
    vec![0; written.next_multiple_of(alignment) - written]
}

#[cfg(test)]
mod tests {
    use super::*;

    const F32: u32 = 0;
    const Q4_0: u32 = 2;

    fn plan(name: &str, ne: &[usize], type_number: u32) -> GgufTensorPlan {
        GgufTensorPlan {
            name: name.into(),
            ne: ne.into(),
            type_number,
        }
    }

    fn metadata() -> BTreeMap<&'static str, MetadataValue> {
        BTreeMap::from([
            ("general.architecture", MetadataValue::Text("llama".into())),
            ("a.u32", MetadataValue::U32(u32::MAX)),
            ("a.f32", MetadataValue::F32(-0.25)),
            (
                "a.texts",
                MetadataValue::Texts(vec!["x".into(), String::new()]),
            ),
            ("a.none", MetadataValue::Texts(Vec::new())),
        ])
    }

    #[test]
    fn what_is_written_reads_back() {
        let plans = [
            plan("b", &[64, 3], Q4_0),
            plan("a", &[3], F32),
            plan("c", &[2, 1, 4], F32),
        ];
        let data = [vec![1; 108], vec![2; 12], vec![3; 32]];
        let mut writer = GgufWriter::begin(Vec::new(), &metadata(), &plans).unwrap();
        writer.put(&data[0][..1]).unwrap();
        writer.put(&[]).unwrap();
        writer.put(&data[0][1..]).unwrap();
        writer.end().unwrap();
        writer.tensor(&data[1]).unwrap();
        writer.tensor(&data[2]).unwrap();
        let bytes = writer.finish().unwrap();
        let header = GgufHeader::parse(&bytes).unwrap();
        assert_eq!((header.version, header.alignment), (3, 32));
        assert_eq!(header.tensors.len(), plans.len());
        for ((tensor, plan), data) in header.tensors.iter().zip(&plans).zip(&data) {
            assert_eq!((&tensor.name, &tensor.ne), (&plan.name, &plan.ne));
            assert_eq!(tensor.type_number, plan.type_number);
            assert_eq!(tensor.start % 32, 0);
            let start = usize::try_from(tensor.start).unwrap();
            assert_eq!(&bytes[start..][..tensor.bytes.unwrap()], data);
        }
        assert!(bytes.len().is_multiple_of(32));
        let read = &header.metadata;
        assert_eq!(read.text("general.architecture"), Some("llama"));
        assert_eq!(read.unsigned("a.u32"), Some(u32::MAX.into()));
        assert_eq!(read.float("a.f32"), Some(-0.25));
        assert_eq!(read.texts("a.texts"), Some(vec!["x", ""]));
        assert_eq!(read.texts("a.none"), Some(vec![]));
        assert!(!read.has("general.alignment"));
    }

    /// Copied keys keep their order and bytes, even those of types that the writer itself never
    /// writes.
    #[test]
    fn what_is_copied_lies_as_it_lay() {
        let key = |name: &str| [&(name.len() as u64).to_le_bytes()[..], name.as_bytes()].concat();
        let pi = [
            &key("b.pi")[..],
            &6_u32.to_le_bytes(),
            &3.25_f32.to_le_bytes(),
        ]
        .concat();
        let alignment = [
            &key(ALIGNMENT_KEY)[..],
            &4_u32.to_le_bytes(),
            &64_u32.to_le_bytes(),
        ];
        let source = [pi, alignment.concat()].concat();
        let read = Metadata::parse(&mut Cursor::new(&source), 2).unwrap();
        let mut metadata = MetadataBytes::default();
        for entry in read.as_they_lie() {
            metadata.copy(&entry);
        }
        metadata.put("a.u32", &MetadataValue::U32(7));
        let plans = [plan("b", &[3], F32), plan("a", &[1], F32)];
        let mut writer = GgufWriter::begin_with(Vec::new(), &metadata, &plans).unwrap();
        writer.tensor(&[1; 12]).unwrap();
        writer.tensor(&[2; 4]).unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes[24..][..source.len()], source);
        let header = GgufHeader::parse(&bytes).unwrap();
        assert_eq!(
            (header.alignment, header.metadata.unsigned("a.u32")),
            (64, Some(7))
        );
        let keys: Vec<&str> = header
            .metadata
            .as_they_lie()
            .iter()
            .map(|of| of.key)
            .collect();
        assert_eq!(keys, ["b.pi", ALIGNMENT_KEY, "a.u32"]);
        let starts: Vec<u64> = header
            .tensors
            .iter()
            .map(|tensor| tensor.start % 64)
            .collect();
        assert_eq!((starts, bytes.len() % 64), (vec![0, 0], 0));
    }

    #[test]
    fn a_file_of_metadata_alone_reads_back() {
        let writer = GgufWriter::begin(Vec::new(), &metadata(), &[]).unwrap();
        let bytes = writer.finish().unwrap();
        assert!(GgufHeader::parse(&bytes).unwrap().tensors.is_empty());
    }

    #[test]
    fn another_length_than_planned_is_named() {
        let plans = [plan("b", &[2], F32), plan("a", &[3], F32)];
        let begin = || GgufWriter::begin(Vec::new(), &BTreeMap::new(), &plans).unwrap();
        let short = begin().tensor(&[0; 7]).unwrap_err().to_string();
        assert_eq!(short, "tensor 'b': 8 bytes planned, 7 written");
        let mut long = begin();
        long.put(&[0; 8]).unwrap();
        let long = long.put(&[0]).unwrap_err().to_string();
        assert_eq!(long, "tensor 'b': 8 bytes planned, 9 written");
        let mut missing = begin();
        missing.tensor(&[0; 8]).unwrap();
        let missing = missing.finish().unwrap_err().to_string();
        assert_eq!(missing, "tensor 'a': 12 bytes planned, 0 written");
        let mut done = begin();
        done.tensor(&[0; 8]).unwrap();
        done.tensor(&[0; 12]).unwrap();
        let beyond = "tensor 'after the last one': 0 bytes planned, ";
        let end = done.end().unwrap_err().to_string();
        assert_eq!(end, format!("{beyond}0 written"));
        let put = done.put(&[0]).unwrap_err().to_string();
        assert_eq!(put, format!("{beyond}1 written"));
    }

    #[test]
    fn what_no_reader_would_take_is_not_written() {
        let long = "n".repeat(64);
        let cases = [
            (
                vec![plan("a", &[1], F32), plan("a", &[1], F32)],
                "tensor 'a': it comes twice",
            ),
            (
                vec![plan("a", &[33], Q4_0)],
                "tensor 'a': rows of 33 numbers",
            ),
            (vec![plan("a", &[], F32)], "tensor 'a': 0 dimensions"),
            (vec![plan("a", &[1; 5], F32)], "tensor 'a': 5 dimensions"),
            (
                vec![plan("a", &[2, 0], F32)],
                "tensor 'a': dimension 1 is 0",
            ),
            (
                vec![plan("a", &[usize::MAX, 2], F32)],
                "are more numbers or bytes",
            ),
            (
                vec![plan("a", &[1], 133)],
                "tensor 'a': type 133 is none of ggml's",
            ),
            (vec![plan("", &[1], F32)], "its name has 0 bytes"),
            (vec![plan("a\n", &[1], F32)], "control character U+000A"),
            (
                vec![plan(&long, &[1], F32)],
                "its name has 64 bytes; 1 to 63 are allowed",
            ),
        ];
        for (plans, said) in cases {
            let error = GgufWriter::begin(Vec::new(), &metadata(), &plans).unwrap_err();
            assert!(error.to_string().contains(said), "{said}: {error}");
        }
        for (key, said) in [
            (
                "general.alignment",
                "key 'general.alignment': what is written has",
            ),
            ("", "key 0 (counted from 0): its name has 0 bytes"),
        ] {
            let metadata = BTreeMap::from([(key, MetadataValue::U32(32))]);
            let error = GgufWriter::begin(Vec::new(), &metadata, &[]).unwrap_err();
            assert!(error.to_string().contains(said), "{said}: {error}");
        }
    }

    #[test]
    fn what_refuses_the_bytes_is_passed_on() {
        let full: &mut [u8] = &mut [];
        let writer = GgufWriter::begin(full, &BTreeMap::new(), &[]).unwrap();
        assert!(matches!(writer.finish(), Err(GgufWriteError::Io(_))));
    }
}
