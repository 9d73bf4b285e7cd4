//! A safetensors writer that holds no tensor: their bytes are passed to it one after another, in
//! the order of the plan.
//!
//! The crate's own writer orders metadata by a random hash, but published files must have the same
//! bytes every time.

use core::fmt;
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use safetensors::Dtype;
use serde::Serialize;

use crate::error::Fatal;

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 18;

/// Name, type and shape of a tensor to be written.
#[derive(Debug, Clone)]
pub(crate) struct TensorPlan {
    /// Key in the file.
    pub(crate) name: String,
    /// Element type.
    pub(crate) dtype: Dtype,
    /// Shape, row-major.
    pub(crate) shape: Vec<usize>,
}

impl TensorPlan {
    /// Bytes of the tensor.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// Why tensors were not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// Writing failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
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

impl WriteError {
    /// The error that ends the run, with the file's path.
    pub(crate) fn of(path: &Path) -> impl Fn(Self) -> Fatal {
        move |error| match error {
            Self::Io(error) => Fatal::io(path, "write")(error),
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

/// Writes tensors.
pub(crate) struct Writer<'p, W: Write> {
    out: BufWriter<W>,
    /// Tensors that are still to be written; the first is the current one.
    plans: &'p [TensorPlan],
    /// Number of bytes written of the current tensor.
    written: usize,
}

impl<W: Write> fmt::Debug for Writer<'_, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("plans", &self.plans)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl<'p, W: Write> Writer<'p, W> {
    /// Writes the header. Its metadata are `format: pt`, which PEFT and transformers expect, and
    /// `metadata`.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    pub(crate) fn begin(
        out: W,
        metadata: &BTreeMap<&str, String>,
        plans: &'p [TensorPlan],
    ) -> Result<Self, WriteError> {
        let header = header(metadata, plans);
        // A buffer as large as the file: hundreds of thousands of small ones are written in a row.
        let bytes = plans
            .iter()
            .map(TensorPlan::bytes)
            .fold(0, usize::saturating_add);
        let bytes = bytes.saturating_add(header.len() + size_of::<u64>());
        let mut out = BufWriter::with_capacity(BUFFER.min(bytes), out);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        Ok(Self {
            out,
            plans,
            written: 0,
        })
    }

    /// Appends bytes of the current tensor.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.written += bytes.len();
        Ok(self.out.write_all(bytes)?)
    }

    /// Ends the current tensor.
    ///
    /// # Errors
    /// [`WriteError::Length`] where it was given another number of bytes than planned.
    pub(crate) fn end(&mut self) -> Result<(), WriteError> {
        let written = core::mem::take(&mut self.written);
        let Some((plan, rest)) = self.plans.split_first() else {
            return Err(WriteError::Length {
                tensor: "after the last one".into(),
                planned: 0,
                written,
            });
        };
        if written != plan.bytes() {
            return Err(unlike(plan, written));
        }
        self.plans = rest;
        Ok(())
    }

    /// Writes a whole tensor.
    ///
    /// # Errors
    /// The tensor cannot be written, as for [`put`](Self::put) and [`end`](Self::end).
    pub(crate) fn tensor(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.put(bytes)?;
        self.end()
    }

    /// Ends the file, and returns the writer beneath.
    ///
    /// # Errors
    /// [`WriteError::Io`], and [`WriteError::Length`] for a tensor that is missing.
    pub(crate) fn finish(self) -> Result<W, WriteError> {
        if let Some(plan) = self.plans.first() {
            return Err(unlike(plan, self.written));
        }
        Ok(self.out.into_inner().map_err(|e| e.into_error())?)
    }
}

fn unlike(plan: &TensorPlan, written: usize) -> WriteError {
    WriteError::Length {
        tensor: plan.name.clone(),
        planned: plan.bytes(),
        written,
    }
}

/// An entry of the header.
#[derive(Serialize)]
#[serde(untagged)]
enum HeaderEntry<'a> {
    Metadata(BTreeMap<&'a str, &'a str>),
    Tensor {
        data_offsets: [usize; 2],
        dtype: String,
        shape: &'a [usize],
    },
}

/// The JSON header, padded with spaces to a multiple of 8 as the format recommends.
fn header(metadata: &BTreeMap<&str, String>, tensors: &[TensorPlan]) -> String {
    let format = core::iter::once(("format", "pt"));
    let given = metadata.iter().map(|(key, value)| (*key, value.as_str()));
    let metadata = HeaderEntry::Metadata(format.chain(given).collect());
    let mut entries = BTreeMap::from([("__metadata__", metadata)]);
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.bytes();
        let entry = HeaderEntry::Tensor {
            data_offsets: [start, end],
            dtype: tensor.dtype.to_string(),
            shape: &tensor.shape,
        };
        entries.insert(&tensor.name, entry);
        start = end;
    }
    // Plain structures of numbers and strings always serialize.
    let mut text = serde_json::to_string(&entries).unwrap_or_default();
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::safetensors::header::Header;

    fn plans() -> [TensorPlan; 2] {
        let plan = |name: &str, dtype, shape: &[usize]| TensorPlan {
            name: name.into(),
            dtype,
            shape: shape.into(),
        };
        [plan("b", Dtype::F32, &[2, 1]), plan("a", Dtype::U8, &[3])]
    }

    fn begin(plans: &[TensorPlan]) -> Writer<'_, Vec<u8>> {
        Writer::begin(Vec::new(), &BTreeMap::new(), plans).unwrap()
    }

    #[test]
    fn what_is_written_reads_back() {
        let plans = plans();
        let data = [vec![0, 0, 128, 63, 0, 0, 0, 64], vec![7, 8, 9]];
        let mut writer = begin(&plans);
        writer.put(&data[0][..5]).unwrap();
        writer.put(&data[0][5..]).unwrap();
        writer.end().unwrap();
        writer.tensor(&data[1]).unwrap();
        let bytes = writer.finish().unwrap();
        let parsed = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(parsed.tensor("a").unwrap().data(), &data[1]);
        assert_eq!(parsed.tensor("b").unwrap().shape(), [2, 1]);
        let header = Header::parse(&bytes, bytes.len() as u64).unwrap();
        assert_eq!(header.claims[0].start % 8, 0);
    }

    /// Published files have the same bytes every time.
    #[test]
    fn the_header_is_sorted_and_padded() {
        let text = header(&BTreeMap::from([("a", "b".to_owned())]), &plans());
        let expected = r#"{"__metadata__":{"a":"b","format":"pt"},"a":{"data_offsets":[8,11],"dtype":"U8","shape":[3]},"b":{"data_offsets":[0,8],"dtype":"F32","shape":[2,1]}}"#;
        assert_eq!(text.trim_end(), expected);
        assert!(text.len().is_multiple_of(8) && text.len() < expected.len() + 8);
    }

    #[test]
    fn another_length_than_planned_is_named() {
        let plans = plans();
        let wrong = begin(&plans).tensor(&[0]).unwrap_err().to_string();
        assert_eq!(wrong, "tensor 'b': 8 bytes planned, 1 written");
        let mut writer = begin(&plans);
        writer.tensor(&[0; 8]).unwrap();
        let missing = writer.finish().unwrap_err();
        assert_eq!(
            missing.to_string(),
            "tensor 'a': 3 bytes planned, 0 written"
        );
        let fatal = WriteError::of(Path::new("x/y"))(missing).to_string();
        assert!(
            fatal.contains("x/y") && fatal.contains("tensor 'a'"),
            "{fatal}"
        );
    }
}
