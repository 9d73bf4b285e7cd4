//! Reading a safetensors header from a file that may be truncated, lying, or no safetensors at all.
//!
//! Format: u64 little-endian header length, that many bytes of JSON, then the tensors' bytes without
//! gaps (safetensors README, "Format"). The crate's parser checks that offsets tile the data and that
//! shape times dtype gives each length; here the lengths are checked against the file itself.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use qera_core::dtype::FloatDtype;
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensorError};

/// Largest header accepted, as in the safetensors crate.
const HEADER_BYTES_MAX: u64 = 100_000_000;

/// A checked header and where the data starts.
#[derive(Debug)]
pub struct Header {
    /// Tensors, shapes and offsets.
    pub metadata: Metadata,
    /// Byte of the file at which offset 0 lies.
    pub data_start: u64,
    /// Length of the file when the header was read.
    pub file_bytes: u64,
}

/// Why a file is no complete safetensors file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Not even the length field fits.
    #[error("truncated: {found} bytes, a safetensors file has at least 8")]
    NoLength {
        /// Bytes in the file.
        found: u64,
    },
    /// The first eight bytes are no plausible length.
    #[error(
        "not a safetensors file: its first 8 bytes give a header of {claimed} bytes in a file of {found}"
    )]
    Length {
        /// Header length that the file claims.
        claimed: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// The header is not the JSON that the format asks for, or its offsets contradict its shapes.
    #[error("not a valid safetensors header: {0}")]
    Json(String),
    /// The data is shorter or longer than the header says.
    #[error("{}: the header describes {expected} bytes, the file has {found}", if found < expected { "truncated" } else { "trailing bytes" })]
    DataLength {
        /// Bytes that the header describes, itself included.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
}

impl Header {
    /// Reads and checks the header; reads nothing of the data.
    ///
    /// # Errors
    /// [`HeaderError`], one variant for each way in which the file is not what it should be.
    pub fn read(path: &Path) -> Result<Self, HeaderError> {
        let mut file = File::open(path)?;
        let found = file.metadata()?.len();
        let mut length = [0_u8; 8];
        if found < 8 {
            return Err(HeaderError::NoLength { found });
        }
        file.read_exact(&mut length)?;
        let claimed = u64::from_le_bytes(length);
        if claimed > HEADER_BYTES_MAX || claimed > found - 8 {
            return Err(HeaderError::Length { claimed, found });
        }
        let mut json = Vec::new();
        file.take(claimed).read_to_end(&mut json)?;
        let metadata: Metadata =
            serde_json::from_slice(&json).map_err(|e| HeaderError::Json(e.to_string()))?;
        let data_start = 8 + claimed;
        let expected = data_start + metadata.data_len() as u64;
        if expected != found {
            return Err(HeaderError::DataLength { expected, found });
        }
        Ok(Self {
            metadata,
            data_start,
            file_bytes: found,
        })
    }
}

impl From<SafeTensorError> for HeaderError {
    fn from(error: SafeTensorError) -> Self {
        Self::Json(error.to_string())
    }
}

/// The float types that qera decodes; `None` for all others.
#[must_use]
pub const fn float_dtype(dtype: Dtype) -> Option<FloatDtype> {
    match dtype {
        Dtype::F32 => Some(FloatDtype::F32),
        Dtype::F16 => Some(FloatDtype::F16),
        Dtype::BF16 => Some(FloatDtype::Bf16),
        _ => None,
    }
}

/// The type's name in a safetensors header.
#[must_use]
pub const fn dtype_name(dtype: FloatDtype) -> Dtype {
    match dtype {
        FloatDtype::F32 => Dtype::F32,
        FloatDtype::F16 => Dtype::F16,
        FloatDtype::Bf16 => Dtype::BF16,
    }
}
