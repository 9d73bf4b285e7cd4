//! The GGUF layout: for each weight NAME the F32 tensors NAME.in_sum2 (ne = channels, matrices),
//! NAME.counts (ne = 1, matrices) and, in newer files, NAME.in_sum. Other tensors (NAME.stats) are
//! passed over.

use std::collections::BTreeMap;

use crate::formats::gguf::error::Quoted;
use crate::formats::gguf::header::{GgufHeader, TensorClaim};
use crate::formats::gguf::writer::{GgufTensorPlan, GgufWriter, MetadataValue};
use crate::formats::imatrix::error::ImatrixError;
use crate::formats::imatrix::numbers::Allowed;
use crate::formats::imatrix::{CountUnit, Imatrix, ImatrixEntry};

const TYPE_KEY: &str = "general.type";
const TYPE: &str = "imatrix";
const DATASETS_KEY: &str = "imatrix.datasets";
const CHUNKS_KEY: &str = "imatrix.chunk_count";
const CHUNK_SIZE_KEY: &str = "imatrix.chunk_size";

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";
const SUMS_OF_X: &str = ".in_sum";
/// The number of F32 among ggml's types.
const F32: u32 = 0;

/// The tensors of a weight.
#[derive(Default)]
struct Parts<'h> {
    sums: Option<&'h TensorClaim>,
    counts: Option<&'h TensorClaim>,
    sums_of_x: Option<&'h TensorClaim>,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Imatrix, ImatrixError> {
    let header = GgufHeader::parse(bytes)?;
    let metadata = &header.metadata;
    if metadata.has(TYPE_KEY) && metadata.text(TYPE_KEY) != Some(TYPE) {
        let found = metadata.text(TYPE_KEY).unwrap_or("no text");
        return Err(ImatrixError::Kind(Quoted::new(found)));
    }
    let mut parts: BTreeMap<&str, Parts<'_>> = BTreeMap::new();
    for tensor in &header.tensors {
        let before = |suffix| tensor.name.strip_suffix(suffix);
        if let Some(weight) = before(SUMS) {
            parts.entry(weight).or_default().sums = Some(tensor);
        } else if let Some(weight) = before(COUNTS) {
            parts.entry(weight).or_default().counts = Some(tensor);
        } else if let Some(weight) = before(SUMS_OF_X) {
            parts.entry(weight).or_default().sums_of_x = Some(tensor);
        }
    }
    let mut entries = BTreeMap::new();
    for (weight, parts) in parts {
        entries.insert(weight.to_owned(), parts.read(bytes, weight)?);
    }
    let datasets = metadata.texts(DATASETS_KEY).unwrap_or_default();
    Ok(Imatrix {
        entries,
        unit: CountUnit::Rows,
        datasets: datasets.into_iter().map(str::to_owned).collect(),
        chunks: metadata.unsigned(CHUNKS_KEY).unwrap_or(0),
        chunk_size: metadata.unsigned(CHUNK_SIZE_KEY).unwrap_or(0),
    })
}

impl Parts<'_> {
    fn read(&self, bytes: &[u8], weight: &str) -> Result<ImatrixEntry, ImatrixError> {
        let missing = |suffix| ImatrixError::Missing {
            weight: Quoted::new(weight),
            suffix,
        };
        let sums = self.sums.ok_or_else(|| missing(SUMS))?;
        let counts = self.counts.ok_or_else(|| missing(COUNTS))?;
        let matrices = sums.ne.iter().skip(1).product::<usize>();
        // A writer may leave out dimensions of 1 at the end.
        let of_one = matrices == 1 && counts.ne.iter().all(|&n| n == 1);
        if !of_one && counts.ne != [1, matrices] {
            return Err(unfit(counts, vec![1, matrices]));
        }
        if let Some(claim) = self.sums_of_x.filter(|claim| claim.ne != sums.ne) {
            return Err(unfit(claim, sums.ne.clone()));
        }
        let of_x = |claim| numbers(bytes, claim, Allowed::Finite);
        let entry = ImatrixEntry {
            counts: numbers(bytes, counts, Allowed::NotNegative)?,
            sums: numbers(bytes, sums, Allowed::NotNegative)?,
            sums_of_x: self.sums_of_x.map(of_x).transpose()?,
        };
        entry.check_counted(weight)?;
        Ok(entry)
    }
}

fn unfit(claim: &TensorClaim, expected: Vec<usize>) -> ImatrixError {
    ImatrixError::Shape {
        tensor: Quoted::new(&claim.name),
        found: claim.ne.clone(),
        expected,
    }
}

fn numbers(bytes: &[u8], claim: &TensorClaim, allowed: Allowed) -> Result<Vec<f64>, ImatrixError> {
    let from = usize::try_from(claim.start).unwrap_or(usize::MAX);
    let stored = bytes.get(from..).and_then(|rest| rest.get(..claim.bytes?));
    let Some(stored) = stored.filter(|_| claim.type_number == F32) else {
        return Err(ImatrixError::Type {
            tensor: Quoted::new(&claim.name),
            found: claim.type_number,
        });
    };
    allowed.read(&claim.name, stored)
}

pub(super) fn write(imatrix: &Imatrix) -> Result<Vec<u8>, ImatrixError> {
    if imatrix.unit == CountUnit::Chunks {
        return Err(ImatrixError::RowsUnknown);
    }
    let number = |what, found: u64| match u32::try_from(found) {
        Ok(number) => Ok(MetadataValue::U32(number)),
        Err(_) => Err(ImatrixError::Number {
            what,
            found: found.into(),
        }),
    };
    let metadata = BTreeMap::from([
        (TYPE_KEY, MetadataValue::Text(TYPE.into())),
        (DATASETS_KEY, MetadataValue::Texts(imatrix.datasets.clone())),
        (CHUNKS_KEY, number("chunks", imatrix.chunks)?),
        (
            CHUNK_SIZE_KEY,
            number("rows of a chunk", imatrix.chunk_size)?,
        ),
    ]);
    let mut plans = Vec::new();
    let mut data = Vec::new();
    for (weight, entry) in &imatrix.entries {
        let matrices = entry.matrices();
        let mut put = |suffix: &str, width, numbers: &[f64]| {
            let plan = GgufTensorPlan {
                name: format!("{weight}{suffix}"),
                ne: vec![width, matrices],
                type_number: F32,
            };
            data.push(encode(&plan.name, numbers)?);
            plans.push(plan);
            Ok::<_, ImatrixError>(())
        };
        put(COUNTS, 1, &entry.counts)?;
        if let Some(sums_of_x) = &entry.sums_of_x {
            put(SUMS_OF_X, entry.width(), sums_of_x)?;
        }
        put(SUMS, entry.width(), &entry.sums)?;
    }
    let mut writer = GgufWriter::begin(Vec::new(), &metadata, &plans)?;
    for bytes in &data {
        writer.tensor(bytes)?;
    }
    Ok(writer.finish()?)
}

/// Rounds a sum to f32.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the format is f32; what it cannot hold is refused"
)]
fn encode(name: &str, numbers: &[f64]) -> Result<Vec<u8>, ImatrixError> {
    let mut bytes = Vec::with_capacity(4 * numbers.len());
    for (index, &value) in numbers.iter().enumerate() {
        let stored = value as f32;
        if !stored.is_finite() {
            return Err(ImatrixError::Value {
                tensor: Quoted::new(name),
                index,
                value,
                allowed: "finite f32 numbers are written",
            });
        }
        bytes.extend(stored.to_le_bytes());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const F16: u32 = 1;

    /// A tensor in a file.
    struct Stored {
        name: &'static str,
        ne: &'static [usize],
        type_number: u32,
        bytes: Vec<u8>,
    }

    fn f32s(name: &'static str, ne: &'static [usize], values: &[f32]) -> Stored {
        Stored {
            name,
            ne,
            type_number: F32,
            bytes: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        }
    }

    fn file(metadata: &BTreeMap<&str, MetadataValue>, tensors: &[Stored]) -> Vec<u8> {
        let plan = |stored: &Stored| GgufTensorPlan {
            name: stored.name.into(),
            ne: stored.ne.into(),
            type_number: stored.type_number,
        };
        let plans: Vec<_> = tensors.iter().map(plan).collect();
        let mut writer = GgufWriter::begin(Vec::new(), metadata, &plans).unwrap();
        for tensor in tensors {
            writer.tensor(&tensor.bytes).unwrap();
        }
        writer.finish().unwrap()
    }

    fn of_type(found: &str) -> BTreeMap<&'static str, MetadataValue> {
        BTreeMap::from([(TYPE_KEY, MetadataValue::Text(found.into()))])
    }

    #[test]
    fn sums_are_read_with_what_the_keys_say() {
        let metadata = BTreeMap::from([
            (TYPE_KEY, MetadataValue::Text(TYPE.into())),
            (DATASETS_KEY, MetadataValue::Texts(vec!["a.txt".into()])),
            (CHUNKS_KEY, MetadataValue::U32(7)),
            (CHUNK_SIZE_KEY, MetadataValue::U32(512)),
        ]);
        let tensors = [
            // In llama.cpp's way, without a last dimension of 1.
            f32s("blk.0.ffn_down.weight.counts", &[1], &[4.0]),
            f32s("blk.0.ffn_down.weight.in_sum2", &[3], &[4.0, 2.0, 0.0]),
            f32s("blk.0.ffn_down.weight.in_sum", &[3], &[-4.0, 2.0, 0.0]),
            f32s("blk.0.ffn_down.weight.stats", &[12], &[f32::NAN; 12]),
            f32s("x.in_sum2", &[1, 3], &[8.0, 0.0, 1.0]),
            f32s("x.counts", &[1, 3], &[2.0, 0.0, 1.0]),
        ];
        let read = Imatrix::parse(&file(&metadata, &tensors)).unwrap();
        assert_eq!(read.datasets, ["a.txt"]);
        assert_eq!(
            (read.unit, read.chunks, read.chunk_size),
            (CountUnit::Rows, 7, 512)
        );
        assert_eq!(read.entries.len(), 2);
        let dense = &read.entries["blk.0.ffn_down.weight"];
        assert_eq!(dense.mean_squares(0), Some(vec![1.0, 0.5, 0.0]));
        assert_eq!(dense.sums_of_x, Some(vec![-4.0, 2.0, 0.0]));
        assert_eq!(dense.mean_squares(1), None);
        let experts = &read.entries["x"];
        assert_eq!((experts.matrices(), experts.width()), (3, 1));
        let means: Vec<_> = (0..4).map(|matrix| experts.mean_squares(matrix)).collect();
        assert_eq!(means, [Some(vec![4.0]), None, Some(vec![1.0]), None]);
        assert_eq!(experts.sums_of_x, None);
        // A file without metadata, in which one tensor has a second dimension of 1.
        let tensors = [
            f32s("x.in_sum2", &[2, 1], &[8.0, 0.0]),
            f32s("x.counts", &[1, 1], &[2.0]),
        ];
        let read = Imatrix::parse(&file(&BTreeMap::new(), &tensors)).unwrap();
        assert_eq!((read.chunks, read.chunk_size), (0, 0));
        assert_eq!(read.entries["x"].mean_squares(0), Some(vec![4.0, 0.0]));
    }

    fn assert_refused(cases: Vec<(Vec<Stored>, &str)>) {
        for (tensors, said) in cases {
            let error = Imatrix::parse(&file(&of_type(TYPE), &tensors)).unwrap_err();
            assert!(error.to_string().contains(said), "{said}: {error}");
        }
    }

    fn sums() -> Stored {
        f32s("x.in_sum2", &[2], &[1.0, 2.0])
    }

    fn counts() -> Stored {
        f32s("x.counts", &[1], &[3.0])
    }

    fn f16s(name: &'static str, ne: &'static [usize]) -> Stored {
        Stored {
            name,
            ne,
            type_number: F16,
            bytes: vec![0; 4],
        }
    }

    #[test]
    fn tensors_that_do_not_go_together_are_named() {
        let empty = "no imatrix: it has no weight with sums";
        let no_sums = "weight 'x' has no tensor 'x.in_sum2'";
        let unfit = "'x.counts' has the dimensions";
        let other_counts = |ne| f32s("x.counts", ne, &[1.0; 2]);
        let one_each = f32s("x.in_sum2", &[1, 2], &[1.0; 2]);
        let other_sums = f32s("x.in_sum", &[1, 2], &[0.0; 2]);
        assert_refused(vec![
            (vec![], empty),
            (vec![f32s("x.stats", &[1], &[0.0])], empty),
            (vec![sums()], "weight 'x' has no tensor 'x.counts'"),
            (vec![counts()], no_sums),
            (vec![f32s("x.in_sum", &[1], &[0.0])], no_sums),
            (
                vec![f16s("x.in_sum2", &[2]), counts()],
                "tensor 'x.in_sum2' has type 1 of ggml; sums",
            ),
            (vec![sums(), f16s("x.counts", &[1, 1, 2])], unfit),
            (
                vec![sums(), other_counts(&[2])],
                "[2]; its weight's sums of squares ask for [1, 1]",
            ),
            (vec![one_each, other_counts(&[2])], unfit),
            (
                vec![sums(), counts(), other_sums],
                "'x.in_sum' has the dimensions [1, 2]",
            ),
        ]);
        let unread = Stored {
            bytes: vec![0; 2],
            ..f16s("x.counts", &[1])
        };
        assert_refused(vec![(vec![sums(), unread], "tensor 'x.counts' has type 1")]);
    }

    #[test]
    fn numbers_that_are_none_are_named() {
        let of = |values| f32s("x.in_sum2", &[2], values);
        let counted = |count| f32s("x.counts", &[1], count);
        let of_x = f32s("x.in_sum", &[2], &[0.0, f32::NEG_INFINITY]);
        let nan = "'x.in_sum2': number 1 (counted from 0) is NaN; finite numbers of at least 0";
        let uncounted = "weight 'x': matrix 0 (counted from 0) has a count of 0 and yet a sum of 1.0 at channel 0";
        let infinite = "'x.in_sum': number 1 (counted from 0) is -inf; finite numbers are";
        assert_refused(vec![
            (vec![of(&[1.0, f32::NAN]), counts()], nan),
            (
                vec![of(&[-0.5, 1.0]), counts()],
                "number 0 (counted from 0) is -0.5",
            ),
            (
                vec![sums(), counted(&[f32::INFINITY])],
                "'x.counts': number 0 (counted from 0) is inf",
            ),
            (
                vec![sums(), counted(&[-1.0])],
                "'x.counts': number 0 (counted from 0) is -1",
            ),
            (vec![sums(), counts(), of_x], infinite),
            (vec![sums(), counted(&[0.0])], uncounted),
        ]);
    }

    #[test]
    fn a_gguf_of_something_else_is_no_imatrix() {
        let model = Imatrix::parse(&file(&of_type("model"), &[])).unwrap_err();
        assert_eq!(
            model.to_string(),
            "no imatrix: its general.type is 'model'; 'imatrix' is expected"
        );
        let broken = Imatrix::parse(b"GGUF\x01\0\0\0").unwrap_err();
        assert!(broken.to_string().contains("version 1"), "{broken}");
    }
}
