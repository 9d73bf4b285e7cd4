//! An adapter's files read back as numbers, whichever form they have (`gguf`, `tensor_file`): A^T
//! and B^T of a layer as PEFT keeps them, rows of B in the order of the Hugging Face weight.

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

/// A layer's correction as the file has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WrittenPair {
    /// Type of the numbers of both; none where they differ, or qera writes none such.
    pub(crate) dtype: Option<FactorType>,
    /// Columns of A^T.
    pub(crate) in_features: usize,
    /// Rows of B^T.
    pub(crate) out_features: usize,
    /// Rank, with the zeros that pad it.
    pub(crate) rank: usize,
    /// A^T, [rank, in_features].
    pub(crate) lora_a: Vec<f32>,
    /// B^T, [out_features, rank].
    pub(crate) lora_b: Vec<f32>,
}

/// What a layer is called in each form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FormNames<'a> {
    /// In the class that serves it.
    pub(crate) served_as: &'a str,
    /// In a GGUF, where one was written.
    pub(crate) gguf: Option<&'a GgufLayerPlace>,
    /// In mlx-lm, where its files were written.
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

/// Why a pair is not read; a sentence that goes after the file's name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnreadPair {
    /// The file cannot be opened, or is no such file.
    #[error("{0}")]
    File(Box<dyn core::error::Error + Send + Sync>),
    /// The layer has no tensors.
    #[error("has no tensors of {0}")]
    NoPair(String),
    /// Half a pair.
    #[error("tensor '{0}' is missing, its other half is there")]
    Half(String),
    /// No matrix.
    #[error("tensor '{tensor}' is {shape:?}, no matrix")]
    NoMatrix {
        /// Its name.
        tensor: String,
        /// Its lengths.
        shape: Vec<usize>,
    },
    /// A factor of a GGUF.
    #[error("tensor '{tensor}' {problem}")]
    Matrix {
        /// Its name.
        tensor: String,
        /// What is wrong with it.
        problem: MatrixProblem,
    },
    /// The pair of an embedding, whose rows are looked up by A.
    #[error("'{0}' is an embedding, whose A and B are turned round, which is not read")]
    Embedding(String),
    /// Numbers of a type that is not read.
    #[error("tensor '{tensor}' is of type {stored}, which is not read")]
    Type {
        /// Its name.
        tensor: String,
        /// What it is stored in.
        stored: String,
    },
    /// NaN or infinite.
    #[error("tensor '{tensor}' is NaN or infinite at [{row}, {column}]")]
    NotFinite {
        /// Its name.
        tensor: String,
        /// The row as it lies there.
        row: usize,
        /// The column.
        column: usize,
    },
    /// A and B do not fit each other.
    #[error("{name}: A has rank {a} and B has rank {b}")]
    Ranks {
        /// The layer's name in this form.
        name: String,
        /// Rank of A.
        a: usize,
        /// Rank of B.
        b: usize,
    },
    /// The order of its rows cannot be that of so many.
    #[error("{name}: its {rows} rows of B cannot lie as {order}")]
    Rows {
        /// The pair.
        name: String,
        /// Rows of B.
        rows: usize,
        /// The order that is said of them.
        order: String,
    },
}

impl UnreadPair {
    /// Whether nothing is wrong with it: an engine reads it, and only this does not.
    #[must_use]
    pub(crate) const fn is_right(&self) -> bool {
        match self {
            Self::Matrix { problem, .. } => matches!(problem, MatrixProblem::Experts),
            Self::Embedding(_) => true,
            _ => false,
        }
    }
}

/// A factor as it lies in a file, by rows.
#[derive(Debug)]
pub(crate) struct Matrix {
    /// Rows.
    pub(crate) rows: usize,
    /// Their length.
    pub(crate) columns: usize,
    /// Type of the numbers; none where qera writes none such.
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
    /// Two factors as PEFT has them.
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
