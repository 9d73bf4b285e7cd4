//! The importance matrix of llama.cpp: for each weight the sums of squares of its input channels,
//! and how many rows were summed. It is a GGUF (`gguf`), or the older .dat (`legacy`).
//!
//! # What a count counts
//! The GGUF layout counts rows. A .dat counts chunks: it holds the mean square of each channel
//! times the number of chunks, and says neither how many rows a chunk has nor how many there were.
//! Therefore counts have a unit ([`CountUnit`]), and a mean is the same in either; no rows are made
//! up for a .dat. Where both are added, a chunk is taken for as many rows as the other file's
//! `imatrix.chunk_size` says, as llama.cpp takes its own context's length. Then the weights of the
//! two against each other are an estimate, and the unit says so.
//!
//! Sums are f64 here, so that adding files loses nothing; in files they are f32.

pub(crate) mod error;
mod gguf;
mod legacy;
mod numbers;

use std::collections::BTreeMap;

use crate::formats::gguf::error::Quoted;
use crate::formats::gguf::header::GgufHeader;
use crate::formats::imatrix::error::ImatrixError;

/// The unit of an imatrix's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CountUnit {
    /// Rows.
    Rows,
    /// Rows, some of which are chunks of a .dat times the chunk size of another file.
    RowsInPart,
    /// Chunks of unknown length.
    Chunks,
}

/// The sums of a weight's input.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImatrixEntry {
    /// The sum of squares of each channel, one matrix (expert) after the other; finite, at least 0.
    pub(crate) sums: Vec<f64>,
    /// The count of each matrix, in the file's [`CountUnit`]; finite, at least 0. Where it is 0,
    /// the sums are 0, too.
    pub(crate) counts: Vec<f64>,
    /// The sum of each channel, in the order of `sums`, which newer files have. Finite.
    pub(crate) sums_of_x: Option<Vec<f64>>,
}

/// An importance matrix.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Imatrix {
    /// The entries by the weight's name in the GGUF, with its `.weight`.
    pub(crate) entries: BTreeMap<String, ImatrixEntry>,
    /// The unit of the counts.
    pub(crate) unit: CountUnit,
    /// The texts that were run, as the file says.
    pub(crate) datasets: Vec<String>,
    /// The number of chunks that were run; 0 where the file does not say.
    pub(crate) chunks: u64,
    /// The number of rows in a chunk; 0 where the file does not say.
    pub(crate) chunk_size: u64,
}

impl ImatrixEntry {
    /// The number of matrices: that of experts, or 1.
    pub(crate) const fn matrices(&self) -> usize {
        self.counts.len()
    }

    /// The number of channels of a matrix.
    pub(crate) fn width(&self) -> usize {
        self.sums.len().checked_div(self.matrices()).unwrap_or(0)
    }

    /// E[x^2] of each channel of a matrix; `None` where nothing was counted.
    pub(crate) fn mean_squares(&self, matrix: usize) -> Option<Vec<f64>> {
        let count = *self.counts.get(matrix).filter(|&&count| count > 0.0)?;
        let sums = self.sums.chunks_exact(self.width()).nth(matrix)?;
        Some(sums.iter().map(|sum| sum / count).collect())
    }

    /// Refuses sums of no rows, which have no mean, and would spoil one that they are added to.
    fn check_counted(&self, weight: &str) -> Result<(), ImatrixError> {
        let width = self.width().max(1);
        for (matrix, sums) in self.sums.chunks(width).enumerate() {
            let channel = sums.iter().position(|&sum| sum > 0.0);
            if let (Some(0.0), Some(channel)) = (self.counts.get(matrix), channel) {
                return Err(ImatrixError::Uncounted {
                    weight: Quoted::new(weight),
                    matrix,
                    channel,
                    sum: sums[channel],
                });
            }
        }
        Ok(())
    }

    fn add(&mut self, other: Self) {
        add(&mut self.sums, &other.sums);
        add(&mut self.counts, &other.counts);
        self.sums_of_x = match (self.sums_of_x.take(), other.sums_of_x) {
            (Some(mut sums), Some(others)) => {
                add(&mut sums, &others);
                Some(sums)
            }
            _ => None,
        };
    }

    fn scale(&mut self, factor: f64) {
        let all = self.sums.iter_mut().chain(&mut self.counts);
        for value in all.chain(self.sums_of_x.iter_mut().flatten()) {
            *value *= factor;
        }
    }
}

fn add(sums: &mut [f64], others: &[f64]) {
    for (sum, other) in sums.iter_mut().zip(others) {
        *sum += other;
    }
}

impl Imatrix {
    /// Reads a file of either layout; `bytes` are the whole file.
    ///
    /// # Errors
    /// [`ImatrixError`] with the tensor, what was found, and what is allowed.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ImatrixError> {
        let imatrix = if GgufHeader::is_gguf(bytes) {
            gguf::parse(bytes)?
        } else if is_safetensors(bytes) {
            return Err(ImatrixError::Safetensors);
        } else {
            legacy::parse(bytes)?
        };
        if imatrix.entries.is_empty() {
            return Err(ImatrixError::Empty);
        }
        Ok(imatrix)
    }

    /// Adds another file: for weights in both, sums and counts are added; the others are taken
    /// over.
    ///
    /// # Errors
    /// [`ImatrixError::Unlike`] for a weight with other widths or another number of matrices;
    /// [`ImatrixError::UnitsUnlike`] where one file counts rows, the other chunks, and the first
    /// does not say how many rows a chunk has. `self` is unchanged then.
    pub(crate) fn add(&mut self, mut other: Self) -> Result<(), ImatrixError> {
        for (name, entry) in &other.entries {
            match self.entries.get(name) {
                Some(own) if !alike(own, entry) => {
                    return Err(ImatrixError::unlike(name, own, entry));
                }
                _ => {}
            }
        }
        self.meet(&mut other)?;
        for (name, entry) in other.entries {
            match self.entries.get_mut(&name) {
                Some(own) => own.add(entry),
                None => {
                    self.entries.insert(name, entry);
                }
            }
        }
        for dataset in other.datasets {
            if !self.datasets.contains(&dataset) {
                self.datasets.push(dataset);
            }
        }
        self.chunks = self.chunks.saturating_add(other.chunks);
        self.chunk_size = match [self.chunk_size, other.chunk_size] {
            [0, size] | [size, 0] => size,
            [own, other] if own == other => own,
            // There is no single size any more.
            _ => 0,
        };
        Ok(())
    }

    /// Brings the counts of both to the same unit.
    fn meet(&mut self, other: &mut Self) -> Result<(), ImatrixError> {
        match (self.unit, other.unit) {
            (CountUnit::Chunks, CountUnit::Chunks) | (CountUnit::Rows, CountUnit::Rows) => {}
            (CountUnit::Chunks, _) => self.count_rows(other.chunk_size)?,
            (_, CountUnit::Chunks) => {
                other.count_rows(self.chunk_size)?;
                self.unit = CountUnit::RowsInPart;
            }
            _ => self.unit = CountUnit::RowsInPart,
        }
        Ok(())
    }

    /// Takes each chunk for this many rows.
    fn count_rows(&mut self, chunk_size: u64) -> Result<(), ImatrixError> {
        if chunk_size == 0 {
            return Err(ImatrixError::UnitsUnlike);
        }
        for entry in self.entries.values_mut() {
            entry.scale(chunk_size as f64);
        }
        self.unit = CountUnit::RowsInPart;
        Ok(())
    }

    /// The bytes of a file in the GGUF layout, as llama.cpp's tools read it: sorted by name, with
    /// the three keys that llama-quantize asks for.
    ///
    /// # Errors
    /// [`ImatrixError::RowsUnknown`] where chunks were counted; [`ImatrixError::Value`] for a sum
    /// that f32 cannot hold; [`ImatrixError::Number`] for chunks that u32 cannot hold;
    /// [`ImatrixError::Write`] for a name that llama.cpp does not read.
    pub(crate) fn write(&self) -> Result<Vec<u8>, ImatrixError> {
        gguf::write(self)
    }
}

/// Whether the bytes begin like a safetensors file: with a u64 length of a header, which is JSON. A
/// .dat has there a number of weights, and the length of a name, which is at least 1.
fn is_safetensors(bytes: &[u8]) -> bool {
    matches!(bytes, [_, _, _, _, 0, 0, 0, 0, b'{', ..])
}

fn alike(one: &ImatrixEntry, other: &ImatrixEntry) -> bool {
    one.matrices() == other.matrices() && one.width() == other.width()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sums: &[f64], counts: &[f64], sums_of_x: Option<&[f64]>) -> ImatrixEntry {
        ImatrixEntry {
            sums: sums.into(),
            counts: counts.into(),
            sums_of_x: sums_of_x.map(Vec::from),
        }
    }

    fn imatrix(unit: CountUnit, chunk_size: u64, name: &str, entry: ImatrixEntry) -> Imatrix {
        Imatrix {
            entries: BTreeMap::from([(name.to_owned(), entry)]),
            unit,
            datasets: vec!["text".into()],
            chunks: 3,
            chunk_size,
        }
    }

    #[test]
    fn files_add_up_by_sums_and_counts() {
        let rows = |name, entry| imatrix(CountUnit::Rows, 512, name, entry);
        let mut sum = rows("a", entry(&[1.0, 2.0], &[4.0], Some(&[1.0, -1.0])));
        let mut other = rows("a", entry(&[3.0, 0.0], &[2.0], Some(&[0.5, 0.0])));
        other
            .entries
            .insert("b".into(), entry(&[7.0], &[1.0], None));
        other.datasets.push("another".into());
        sum.add(other).unwrap();
        assert_eq!(
            sum.entries["a"],
            entry(&[4.0, 2.0], &[6.0], Some(&[1.5, -1.0]))
        );
        assert_eq!(sum.entries["b"], entry(&[7.0], &[1.0], None));
        assert_eq!((sum.chunks, sum.chunk_size), (6, 512));
        assert_eq!(sum.datasets, ["text", "another"]);
        assert_eq!(sum.unit, CountUnit::Rows);
        // This one has no sums of x, so that they are of fewer rows than the counts say.
        sum.add(rows("a", entry(&[0.0, 0.0], &[1.0], None)))
            .unwrap();
        assert_eq!(sum.entries["a"], entry(&[4.0, 2.0], &[7.0], None));
        let of_chunks = |chunk_size| {
            let mut other = rows("a", entry(&[0.0, 0.0], &[1.0], None));
            other.chunk_size = chunk_size;
            other
        };
        sum.add(of_chunks(0)).unwrap();
        assert_eq!(sum.chunk_size, 512);
        sum.add(of_chunks(256)).unwrap();
        assert_eq!(sum.chunk_size, 0);
    }

    #[test]
    fn chunks_are_taken_for_rows_only_beside_a_file_that_knows_their_length() {
        let rows = |size| imatrix(CountUnit::Rows, size, "a", entry(&[10.0], &[10.0], None));
        let chunks = || imatrix(CountUnit::Chunks, 0, "a", entry(&[6.0], &[2.0], None));
        let together = entry(&[34.0], &[18.0], None);
        let mut one = rows(4);
        one.add(chunks()).unwrap();
        assert_eq!(
            (&one.entries["a"], one.unit),
            (&together, CountUnit::RowsInPart)
        );
        let mut other = chunks();
        other.add(rows(4)).unwrap();
        assert_eq!(
            (&other.entries["a"], other.unit),
            (&together, CountUnit::RowsInPart)
        );
        assert_eq!(other.chunk_size, 4);
        other.add(rows(4)).unwrap();
        assert_eq!(other.unit, CountUnit::RowsInPart);
        let mut still = chunks();
        still.add(chunks()).unwrap();
        assert_eq!(still.entries["a"], entry(&[12.0], &[4.0], None));
        assert_eq!(still.unit, CountUnit::Chunks);
        for [mut one, other] in [[rows(0), chunks()], [chunks(), rows(0)]] {
            let before = one.clone();
            let error = one.add(other).unwrap_err().to_string();
            assert!(error.contains("no imatrix.chunk_size says"), "{error}");
            assert_eq!(one, before);
        }
        let error = chunks().write().unwrap_err().to_string();
        assert!(error.contains("it counts chunks"), "{error}");
    }

    #[test]
    fn files_of_other_models_do_not_add_up() {
        let of = |entry| imatrix(CountUnit::Rows, 512, "a", entry);
        let own = of(entry(&[1.0, 2.0], &[1.0], None));
        for (other, said) in [
            (
                entry(&[1.0; 3], &[1.0], None),
                "1 x 2 channels here and 1 x 3 in",
            ),
            (
                entry(&[1.0; 2], &[1.0; 2], None),
                "1 x 2 channels here and 2 x 1 in",
            ),
            (
                entry(&[1.0; 4], &[1.0; 2], None),
                "1 x 2 channels here and 2 x 2 in",
            ),
        ] {
            let mut sum = own.clone();
            let error = sum.add(of(other)).unwrap_err().to_string();
            assert!(error.starts_with("weight 'a' has "), "{error}");
            assert!(error.contains(said), "{said}: {error}");
            assert_eq!(sum, own);
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut written = imatrix(
            CountUnit::Rows,
            512,
            "blk.1.attn_q.weight",
            entry(
                &[1.5, 0.0, 3.0, 4.0],
                &[2.0, 5.0],
                Some(&[-1.0, 0.0, 2.0, 0.25]),
            ),
        );
        let last = entry(&[0.5; 7], &[1.0], None);
        written.entries.insert("a".into(), last);
        let bytes = written.write().unwrap();
        assert_eq!(Imatrix::parse(&bytes).unwrap(), written);
        assert_eq!(written.write().unwrap(), bytes);
        let header = GgufHeader::parse(&bytes).unwrap();
        let names: Vec<_> = header.tensors.iter().map(|tensor| &*tensor.name).collect();
        assert!(names.is_sorted(), "{names:?}");
        let expert = header
            .tensors
            .iter()
            .find(|t| t.name == "blk.1.attn_q.weight.in_sum2");
        assert_eq!(expert.unwrap().ne, [2, 2]);
        for key in [
            "imatrix.datasets",
            "imatrix.chunk_count",
            "imatrix.chunk_size",
        ] {
            assert!(header.metadata.has(key), "{key}");
        }
        assert_eq!(header.metadata.text("general.type"), Some("imatrix"));
        // Even without texts the key is written.
        written.datasets.clear();
        assert_eq!(Imatrix::parse(&written.write().unwrap()).unwrap(), written);
    }

    #[test]
    fn what_the_layout_cannot_hold_is_not_written() {
        let of =
            |name: &str, sum| imatrix(CountUnit::Rows, 1, name, entry(&[0.0, sum], &[1.0], None));
        let mut chunks = of("a", 1.0);
        chunks.chunks = 1 << 32;
        for (imatrix, said) in [
            (
                of("a", 1e39),
                "tensor 'a.in_sum2': number 1 (counted from 0) is 1e39; finite",
            ),
            (of("a", f64::NAN), "is NaN; finite f32 numbers are written"),
            (
                of(&"n".repeat(56), 1.0),
                "its name has 64 bytes; 1 to 63 are allowed",
            ),
            (
                chunks,
                "chunks are 4294967296; 0 or more, and at most a u32",
            ),
        ] {
            let error = imatrix.write().unwrap_err().to_string();
            assert!(error.contains(said), "{said}: {error}");
        }
    }
}
