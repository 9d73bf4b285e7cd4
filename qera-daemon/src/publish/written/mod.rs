//! Reads an adapter's files back as numbers, whichever form they have (`gguf`, `tensor_file`): A^T
//! and B^T of a layer as PEFT stores them, with rows of B in the order of the Hugging Face weight.

pub(crate) mod gguf;
pub(crate) mod tensor_file;

use std::path::Path;

use crate::formats::gguf::lora_matrix::MatrixProblem;
use crate::host::factor_type::FactorType;
use crate::publish::forms::{GGUF, MLX};
use crate::publish::written::gguf::GgufFile;
use crate::publish::written::tensor_file::{MlxFile, PeftFile};
use crate::settings::publish::AdapterForm;
use crate::weights::gguf::layer_names::GgufLayerPlace;

/// Name of PEFT's file with the tensors.
pub(crate) const PEFT_TENSORS: &str = "adapter_model.safetensors";

/// A layer's correction as a file has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WrittenPair {
    /// The type of both factors' numbers; `None` where they differ, or qera writes no such type.
    pub(crate) dtype: Option<FactorType>,
    /// Columns of A^T.
    pub(crate) in_features: usize,
    /// Rows of B^T.
    pub(crate) out_features: usize,
    /// The rank, with the zeros that pad it.
    pub(crate) rank: usize,
    /// A^T, [rank, in_features].
    pub(crate) lora_a: Vec<f32>,
    /// B^T, [out_features, rank].
    pub(crate) lora_b: Vec<f32>,
}

/// A layer's name in each form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FormNames<'a> {
    /// The layer's name in the class that serves the model.
    pub(crate) served_as: &'a str,
    /// The layer's place in a GGUF, where one was written.
    pub(crate) gguf: Option<&'a GgufLayerPlace>,
    /// The layer's name in mlx-lm, where its files were written.
    pub(crate) mlx: Option<&'a str>,
}

/// The files of one form.
#[derive(Debug)]
pub(crate) enum WrittenForm {
    /// PEFT's.
    Peft(PeftFile),
    /// A GGUF.
    Gguf(GgufFile),
    /// mlx-lm's.
    Mlx(MlxFile),
}

/// Why a pair is not read: a sentence that follows the file's name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnreadPair {
    /// The file cannot be opened, or is of another kind.
    #[error("{0}")]
    File(Box<dyn core::error::Error + Send + Sync>),
    /// The layer has no tensors.
    #[error("has no tensors of {0}")]
    NoPair(String),
    /// Only one of the layer's two tensors is there.
    #[error("tensor '{0}' is missing, its other half is there")]
    Half(String),
    /// A tensor is no matrix.
    #[error("tensor '{tensor}' is {shape:?}, no matrix")]
    NoMatrix {
        /// The tensor's name.
        tensor: String,
        /// The tensor's lengths.
        shape: Vec<usize>,
    },
    /// A factor in a GGUF cannot be read.
    #[error("tensor '{tensor}' {problem}")]
    Matrix {
        /// The tensor's name.
        tensor: String,
        /// What is wrong with the factor.
        problem: MatrixProblem,
    },
    /// The pair belongs to an embedding, whose rows are looked up by A.
    #[error("'{0}' is an embedding, whose A and B are transposed, which is not read")]
    Embedding(String),
    /// The numbers have a type that is not read.
    #[error("tensor '{tensor}' is of type {stored}, which is not read")]
    Type {
        /// The tensor's name.
        tensor: String,
        /// The type in which it is stored.
        stored: String,
    },
    /// A number is NaN or infinite.
    #[error("tensor '{tensor}' is NaN or infinite at [{row}, {column}]")]
    NotFinite {
        /// The tensor's name.
        tensor: String,
        /// The number's row, as it lies in the file.
        row: usize,
        /// The number's column.
        column: usize,
    },
    /// A and B have different ranks.
    #[error("{name}: A has rank {a} and B has rank {b}")]
    Ranks {
        /// The layer's name in this form.
        name: String,
        /// Rank of A.
        a: usize,
        /// Rank of B.
        b: usize,
    },
    /// The rows of B cannot lie in the stated order.
    #[error("{name}: its {rows} rows of B do not fit the order {order}")]
    Rows {
        /// The layer's name in this form.
        name: String,
        /// The number of rows of B.
        rows: usize,
        /// The order that the rows are said to have.
        order: String,
    },
}

impl UnreadPair {
    /// Whether the pair is in order: an engine reads it, and only this program does not.
    #[must_use]
    pub(crate) const fn is_right(&self) -> bool {
        match self {
            Self::Matrix { problem, .. } => matches!(problem, MatrixProblem::Experts),
            Self::Embedding(_) => true,
            _ => false,
        }
    }
}

/// A factor as it lies in a file, row by row.
#[derive(Debug)]
pub(crate) struct Matrix {
    /// The number of rows.
    pub(crate) rows: usize,
    /// The length of a row.
    pub(crate) columns: usize,
    /// The type of the numbers; `None` where qera writes no such type.
    pub(crate) dtype: Option<FactorType>,
    /// The numbers.
    pub(crate) values: Vec<f32>,
}

impl WrittenForm {
    /// Opens the files of a form in a generation's folder.
    ///
    /// # Errors
    /// [`UnreadPair::File`].
    pub(crate) fn open(folder: &Path, form: AdapterForm) -> Result<Self, UnreadPair> {
        Ok(match form {
            AdapterForm::Peft => Self::Peft(PeftFile::open(&folder.join(PEFT_TENSORS))?),
            AdapterForm::Gguf => Self::Gguf(GgufFile::open(&folder.join(GGUF))?),
            AdapterForm::Mlx => Self::Mlx(MlxFile::open(&folder.join(MLX))?),
        })
    }

    /// A layer's pair.
    ///
    /// # Errors
    /// [`UnreadPair`], which names the tensor.
    pub(crate) fn pair(&self, names: FormNames<'_>) -> Result<WrittenPair, UnreadPair> {
        let unnamed = || UnreadPair::NoPair(names.served_as.to_owned());
        match self {
            Self::Peft(file) => file.pair(names.served_as),
            Self::Gguf(file) => {
                let place = names.gguf.ok_or_else(unnamed)?;
                file.pair(&place.tensor, place.rows)
            }
            Self::Mlx(file) => file.pair(names.mlx.ok_or_else(unnamed)?),
        }
    }
}

impl WrittenPair {
    /// The pair of two factors that lie as in PEFT.
    ///
    /// # Errors
    /// [`UnreadPair::Ranks`].
    pub(crate) fn new(name: &str, a: Matrix, b: Matrix) -> Result<Self, UnreadPair> {
        if a.rows != b.columns {
            return Err(UnreadPair::Ranks {
                name: name.to_owned(),
                a: a.rows,
                b: b.columns,
            });
        }
        Ok(Self {
            dtype: a.dtype.filter(|_| a.dtype == b.dtype),
            in_features: a.columns,
            out_features: b.rows,
            rank: a.rows,
            lora_a: a.values,
            lora_b: b.values,
        })
    }
}
