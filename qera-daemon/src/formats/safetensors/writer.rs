//! A safetensors writer that holds one tensor at a time.
//!
//! The crate's own writer leaves the file readable by its owner alone and orders metadata by a random
//! hash; published files are read by other users' servers and must have the same bytes every time.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use safetensors::Dtype;

use crate::error::Fatal;

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

/// Where the bytes of a tensor go.
#[derive(Debug)]
pub(crate) struct Sink<'a> {
    path: &'a Path,
    out: BufWriter<File>,
    written: usize,
    hasher: Option<blake3::Hasher>,
}

impl Sink<'_> {
    /// Appends bytes of the tensor whose turn it is.
    ///
    /// # Errors
    /// [`Fatal::Io`] with the path.
    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> Result<(), Fatal> {
        self.written += bytes.len();
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.out
            .write_all(bytes)
            .map_err(Fatal::io(self.path, "write"))
    }
}

/// Writes `path` with the tensors in the order given, each written by `data` when its turn comes, and
/// syncs the file. The only metadata is `format: pt`, which PEFT and transformers expect.
///
/// # Errors
/// [`Fatal::Io`] with the path; whatever `data` returns; [`Fatal::Checkpoint`] when `data` writes another
/// number of bytes than planned.
pub(crate) fn write(
    path: &Path,
    tensors: &[TensorPlan],
    data: impl FnMut(usize, &mut Sink<'_>) -> Result<(), Fatal>,
) -> Result<(), Fatal> {
    write_all(path, &[], None, tensors, data).map(drop)
}

/// As [`write()`], with more metadata; returns the BLAKE3 of the file.
///
/// # Errors
/// As for [`write()`].
pub(crate) fn write_hashed(
    path: &Path,
    metadata: &[(&str, String)],
    tensors: &[TensorPlan],
    data: impl FnMut(usize, &mut Sink<'_>) -> Result<(), Fatal>,
) -> Result<blake3::Hash, Fatal> {
    let hasher = write_all(path, metadata, Some(blake3::Hasher::new()), tensors, data)?;
    Ok(hasher.unwrap_or_default().finalize())
}

fn write_all(
    path: &Path,
    metadata: &[(&str, String)],
    hasher: Option<blake3::Hasher>,
    tensors: &[TensorPlan],
    mut data: impl FnMut(usize, &mut Sink<'_>) -> Result<(), Fatal>,
) -> Result<Option<blake3::Hasher>, Fatal> {
    let file = File::create(path).map_err(Fatal::io(path, "create"))?;
    let mut sink = Sink {
        path,
        out: BufWriter::with_capacity(1 << 18, file),
        written: 0,
        hasher,
    };
    let header = header(metadata, tensors);
    sink.write_all(&(header.len() as u64).to_le_bytes())?;
    sink.write_all(header.as_bytes())?;
    for (index, tensor) in tensors.iter().enumerate() {
        sink.written = 0;
        data(index, &mut sink)?;
        if sink.written != tensor.bytes() {
            return Err(Fatal::Checkpoint {
                path: path.to_path_buf(),
                reason: format!(
                    "tensor '{}': {} bytes planned, {} written",
                    tensor.name,
                    tensor.bytes(),
                    sink.written
                ),
            });
        }
    }
    let file = sink
        .out
        .into_inner()
        .map_err(|e| Fatal::io(path, "write")(e.into_error()))?;
    file.sync_all().map_err(Fatal::io(path, "sync"))?;
    Ok(sink.hasher)
}

/// The JSON header, padded with spaces to a multiple of 8 as the format recommends.
fn header(metadata: &[(&str, String)], tensors: &[TensorPlan]) -> String {
    let mut map = serde_json::Map::new();
    let format = [("format", "pt".to_owned())];
    let metadata = format.iter().chain(metadata);
    let metadata = metadata.map(|(k, v)| ((*k).to_owned(), v.clone().into()));
    map.insert(
        "__metadata__".into(),
        serde_json::Value::Object(metadata.collect()),
    );
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.bytes();
        map.insert(
            tensor.name.clone(),
            serde_json::json!({
                "dtype": tensor.dtype.to_string(),
                "shape": tensor.shape,
                "data_offsets": [start, end],
            }),
        );
        start = end;
    }
    let mut text = serde_json::Value::Object(map).to_string();
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::safetensors::header::Header;

    #[test]
    fn what_is_written_reads_back() {
        let path =
            std::env::temp_dir().join(format!("qera-writer-{}.safetensors", std::process::id()));
        let plans = [
            TensorPlan {
                name: "b".into(),
                dtype: Dtype::F32,
                shape: vec![2, 1],
            },
            TensorPlan {
                name: "a".into(),
                dtype: Dtype::U8,
                shape: vec![3],
            },
        ];
        let data = [vec![0, 0, 128, 63, 0, 0, 0, 64], vec![7, 8, 9]];
        write(&path, &plans, |i, out| out.write_all(&data[i])).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let parsed = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(parsed.tensor("a").unwrap().data(), &data[1]);
        assert_eq!(parsed.tensor("b").unwrap().shape(), [2, 1]);
        assert_eq!(Header::read(&path).unwrap().claims[0].start % 8, 0);
        assert!(
            write(&path, &plans, |_, out| out.write_all(&[0])).is_err(),
            "a wrong length is refused"
        );
        std::fs::remove_file(&path).unwrap();
    }
}
