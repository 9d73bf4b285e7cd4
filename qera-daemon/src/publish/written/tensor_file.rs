//! Reads an adapter's tensors back from a safetensors file, PEFT's or mlx-lm's.

use std::path::Path;

use qera_core::dtype::widen;

use crate::disk::open_file::OpenFile;
use crate::formats::mlx::{self, MlxFactor, MlxTensors};
use crate::formats::peft::tensors::{LoraTensors, factor_name};
use crate::formats::safetensors::header::{Claim, Header, HeaderError, float_dtype};
use crate::host::factor_type::FactorType;
use crate::publish::mlx_adapter::transposed;
use crate::publish::written::{Matrix, UnreadPair, WrittenPair};

/// An open file of PEFT's tensors.
#[derive(Debug)]
pub(crate) struct PeftFile {
    file: OpenFile,
    tensors: LoraTensors,
}

/// An open file of mlx-lm's tensors.
#[derive(Debug)]
pub(crate) struct MlxFile {
    file: OpenFile,
    /// The names, types and shapes of its tensors.
    pub(crate) tensors: MlxTensors,
}

impl PeftFile {
    /// Opens a file.
    ///
    /// # Errors
    /// [`UnreadPair::File`].
    pub(crate) fn open(path: &Path) -> Result<Self, UnreadPair> {
        let OpenTensorFile { file, header } =
            open(path).map_err(|e| UnreadPair::File(Box::new(e)))?;
        let tensors = LoraTensors::of(header);
        Ok(Self { file, tensors })
    }

    /// The pair of a module.
    ///
    /// # Errors
    /// [`UnreadPair`], which names the tensor.
    pub(crate) fn pair(&self, module: &str) -> Result<WrittenPair, UnreadPair> {
        let pair = self.tensors.pairs.get(module);
        let pair = pair.ok_or_else(|| UnreadPair::NoPair(module.to_owned()))?;
        let [a, b] = [('A', &pair.a), ('B', &pair.b)].map(|(factor, claim)| {
            let claim = claim.as_ref();
            let claim = claim.ok_or_else(|| UnreadPair::Half(factor_name(module, factor)));
            claim.and_then(|claim| matrix(&self.file, claim))
        });
        WrittenPair::new(module, a?, b?)
    }
}

impl MlxFile {
    /// Opens the file in a folder.
    ///
    /// # Errors
    /// [`UnreadPair::File`].
    pub(crate) fn open(folder: &Path) -> Result<Self, UnreadPair> {
        let opened = open(&folder.join(mlx::TENSORS));
        let OpenTensorFile { file, header } = opened.map_err(|e| UnreadPair::File(Box::new(e)))?;
        let tensors = MlxTensors::of(header);
        Ok(Self { file, tensors })
    }

    /// The pair of a module.
    ///
    /// # Errors
    /// [`UnreadPair`], which names the tensor.
    pub(crate) fn pair(&self, module: &str) -> Result<WrittenPair, UnreadPair> {
        let pair = self.tensors.pairs.get(module);
        let pair = pair.ok_or_else(|| UnreadPair::NoPair(module.to_owned()))?;
        let factors = [(MlxFactor::A, &pair.a), (MlxFactor::B, &pair.b)];
        let [a, b] = factors.map(|(factor, claim)| {
            let claim = claim.as_ref();
            let claim = claim.ok_or_else(|| UnreadPair::Half(mlx::factor_name(module, factor)));
            let matrix = claim.and_then(|claim| matrix(&self.file, claim))?;
            Ok::<_, UnreadPair>(Matrix {
                rows: matrix.columns,
                columns: matrix.rows,
                values: transposed(&matrix.values, matrix.rows),
                ..matrix
            })
        });
        WrittenPair::new(module, a?, b?)
    }
}

struct OpenTensorFile {
    file: OpenFile,
    header: Header,
}

fn open(path: &Path) -> Result<OpenTensorFile, HeaderError> {
    let file = OpenFile::open(path)?;
    let header = Header::read(file.reader(), file.identity()?.bytes)?;
    Ok(OpenTensorFile { file, header })
}

fn matrix(file: &OpenFile, claim: &Claim) -> Result<Matrix, UnreadPair> {
    let tensor = claim.key.clone();
    let &[rows, columns] = &claim.shape[..] else {
        let shape = claim.shape.clone();
        return Err(UnreadPair::NoMatrix { tensor, shape });
    };
    if rows == 0 || columns == 0 {
        let shape = claim.shape.clone();
        return Err(UnreadPair::NoMatrix { tensor, shape });
    }
    let Some(dtype) = float_dtype(claim.dtype) else {
        let stored = claim.dtype.to_string();
        return Err(UnreadPair::Type { tensor, stored });
    };
    let mut bytes = vec![0; claim.bytes];
    let read = file.read_exact_at(&mut bytes, claim.start);
    read.map_err(|e| UnreadPair::File(Box::new(e)))?;
    let mut values = vec![0.0; bytes.len() / dtype.size_bytes()];
    widen(&bytes, dtype, &mut values);
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        return Err(UnreadPair::NotFinite {
            tensor,
            row: at / columns,
            column: at % columns,
        });
    }
    Ok(Matrix {
        rows,
        columns,
        dtype: Some(FactorType::Float(dtype)),
        values,
    })
}
