//! Events about an imatrix, and about layers that it stands in for.

use core::fmt;

use serde::Serialize;

use crate::calibrate::imatrix_files::ImatrixRecord;

/// The content of an imatrix.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(crate) struct ImatrixRead<'a>(pub(crate) &'a ImatrixRecord);

impl fmt::Display for ImatrixRead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ImatrixRecord {
            file,
            entries,
            datasets,
            chunks,
            chunk_size,
            ..
        } = self.0;
        write!(f, "imatrix {file}: {entries} entries")?;
        if *chunks > 0 {
            write!(f, ", {chunks} chunks")?;
        }
        if *chunks > 0 && *chunk_size > 0 {
            write!(f, " of {chunk_size} tokens")?;
        }
        if !datasets.is_empty() {
            write!(f, " ({})", datasets.join(", "))?;
        }
        Ok(())
    }
}

/// A state's statistics are written as an imatrix.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ImatrixWritten {
    /// The file.
    pub(crate) file: String,
    /// The number of its entries.
    pub(crate) entries: usize,
    /// Number of shards in the statistics.
    pub(crate) shards: usize,
    /// Number of rows of the input that has most.
    pub(crate) rows: u64,
}

impl fmt::Display for ImatrixWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            entries,
            shards,
            rows,
        } = self;
        write!(
            f,
            "imatrix written: {file} ({entries} entries; {shards} shards, {rows} rows at most)"
        )
    }
}

/// A layer has a correction from an imatrix. Its diagonal errors are relative to the diagonal
/// power.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LayerStoodIn<'a> {
    /// Module path.
    pub(crate) layer: &'a str,
    /// The rank that is used; 0 where nothing was corrected.
    pub(crate) rank: usize,
    /// The diagonal error without correction.
    pub(crate) diagonal_error_without: f64,
    /// The diagonal error with the correction as written.
    pub(crate) diagonal_error_with: f64,
}

impl fmt::Display for LayerStoodIn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            layer,
            rank,
            diagonal_error_without: without,
            diagonal_error_with: with,
        } = self;
        if *rank == 0 {
            return write!(f, "{layer}: imatrix: nothing to correct");
        }
        write!(
            f,
            "{layer}: imatrix: diagonal error {without:.3e} -> {with:.3e} (rank {rank})"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::event::Event;

    #[track_caller]
    fn check(event: &Event<'_>, text: &str, json: &str) {
        assert_eq!(event.to_string(), text);
        assert_eq!(serde_json::to_string(event).unwrap(), json);
    }

    #[test]
    fn an_imatrix_is_told() {
        let record = ImatrixRecord {
            file: "imatrix.gguf".into(),
            digest: "blake3:0".into(),
            entries: 7,
            datasets: vec!["wiki.txt".into()],
            chunks: 3,
            chunk_size: 512,
            counts: "tokens",
        };
        check(
            &Event::ImatrixRead(ImatrixRead(&record)),
            "imatrix imatrix.gguf: 7 entries, 3 chunks of 512 tokens (wiki.txt)",
            r#"{"event":"imatrix-read","file":"imatrix.gguf","digest":"blake3:0","entries":7,"datasets":["wiki.txt"],"chunks":3,"chunk_size":512,"counts":"tokens"}"#,
        );
        let bare = ImatrixRecord {
            datasets: Vec::new(),
            chunks: 0,
            ..record
        };
        let said = Event::ImatrixRead(ImatrixRead(&bare)).to_string();
        assert_eq!(said, "imatrix imatrix.gguf: 7 entries");
    }

    #[test]
    fn a_layer_that_it_stands_in_for_is_told_by_its_diagonal_error() {
        let stood_in = |rank| {
            Event::Imatrix(LayerStoodIn {
                layer: "a",
                rank,
                diagonal_error_without: 0.5,
                diagonal_error_with: 0.25,
            })
        };
        check(
            &stood_in(2),
            "a: imatrix: diagonal error 5.000e-1 -> 2.500e-1 (rank 2)",
            r#"{"event":"imatrix","layer":"a","rank":2,"diagonal_error_without":0.5,"diagonal_error_with":0.25}"#,
        );
        assert_eq!(stood_in(0).to_string(), "a: imatrix: nothing to correct");
    }
}
