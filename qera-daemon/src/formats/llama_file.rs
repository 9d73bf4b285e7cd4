//! What llama.cpp's files say of themselves, for tests that compare our readers with other
//! programs.

use core::fmt;

use serde_json::{Value, json};

use crate::formats::gguf::error::GgufError;
use crate::formats::gguf::header::{GgufHeader, TensorClaim};
use crate::formats::gguf::lora::LoraGguf;
use crate::formats::gguf::lora_matrix::LoraMatrix;
use crate::formats::imatrix::error::ImatrixError;
use crate::formats::imatrix::{CountUnit, Imatrix, ImatrixEntry};

/// A file of llama.cpp, read as a GGUF, as an importance matrix and as an adapter. It displays as
/// JSON: under `header`, `imatrix` and `adapter` stands what it holds, or `refused` with the
/// reason.
#[derive(Debug)]
pub struct LlamaFile<'b> {
    header: Result<GgufHeader<'b>, GgufError>,
    imatrix: Result<Imatrix, ImatrixError>,
    /// Whether it is an adapter. What it holds is read again when asked for, so that only one
    /// header is in memory.
    adapter: Result<(), GgufError>,
    bytes: &'b [u8],
}

impl<'b> LlamaFile<'b> {
    /// Reads any bytes.
    #[must_use]
    pub fn read(bytes: &'b [u8]) -> Self {
        let adapter = LoraGguf::parse(bytes).map(drop);
        Self {
            header: GgufHeader::parse(bytes),
            imatrix: Imatrix::parse(bytes),
            adapter,
            bytes,
        }
    }

    /// The importance matrix as we write it; `None` where the file is none, or it cannot be
    /// written.
    #[must_use]
    pub fn imatrix_again(&self) -> Option<Vec<u8>> {
        self.imatrix.as_ref().ok()?.write().ok()
    }
}

impl fmt::Display for LlamaFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = match &self.header {
            Ok(header) => described(header),
            Err(error) => json!({ "refused": error.to_string() }),
        };
        let imatrix = match &self.imatrix {
            Ok(imatrix) => summed(imatrix),
            Err(error) => json!({ "refused": error.to_string() }),
        };
        let adapter = match &self.adapter {
            Ok(()) => LoraGguf::parse(self.bytes).map_or(Value::Null, |of| paired(&of, self.bytes)),
            Err(error) => json!({ "refused": error.to_string() }),
        };
        let all = json!({ "header": header, "imatrix": imatrix, "adapter": adapter });
        write!(f, "{all}")
    }
}

fn paired(adapter: &LoraGguf, bytes: &[u8]) -> Value {
    let factor = |claim: &Option<TensorClaim>| match claim {
        None => Value::Null,
        Some(claim) => match LoraMatrix::read(bytes, claim) {
            Ok(of) => json!({ "rows": of.rows, "columns": of.columns, "values": of.values }),
            Err(problem) => json!({ "refused": problem.to_string() }),
        },
    };
    let pairs = adapter.pairs.iter().map(|(tensor, pair)| {
        let both = json!({ "a": factor(&pair.a), "b": factor(&pair.b) });
        (tensor.clone(), both)
    });
    json!({
        "architecture": adapter.architecture,
        "scale_of_rank_4": adapter.scale(4),
        "problems": adapter.problems,
        "unchecked": adapter.unchecked,
        "pairs": pairs.collect::<serde_json::Map<_, _>>(),
    })
}

fn described(header: &GgufHeader<'_>) -> Value {
    let tensor = header.tensors.iter().map(|tensor| {
        json!({
            "name": tensor.name,
            "ne": tensor.ne,
            "type": tensor.type_number,
            "start": tensor.start,
            "bytes": tensor.bytes,
        })
    });
    json!({
        "version": header.version,
        "alignment": header.alignment,
        "architecture": header.metadata.text("general.architecture"),
        "tensors": tensor.collect::<Value>(),
    })
}

fn summed(imatrix: &Imatrix) -> Value {
    let means = |entry: &ImatrixEntry| -> Value {
        let each = (0..entry.matrices()).map(|matrix| entry.mean_squares(matrix));
        each.map(Value::from).collect()
    };
    let weights = imatrix.entries.iter().map(|(name, entry)| {
        json!({
            "name": name,
            "counts": entry.counts,
            "mean_squares": means(entry),
            "sums_of_x": entry.sums_of_x,
        })
    });
    json!({
        "counts_are": match imatrix.unit {
            CountUnit::Rows => "rows",
            CountUnit::RowsInPart => "rows in part",
            CountUnit::Chunks => "chunks",
        },
        "datasets": imatrix.datasets,
        "chunks": imatrix.chunks,
        "chunk_size": imatrix.chunk_size,
        "weights": weights.collect::<Value>(),
    })
}
