//! The numbers of rows of a shard's sums. They are read with the header, so that a plan knows them.

use std::collections::BTreeMap;
use std::io::Result;

use safetensors::Dtype;

use crate::disk::open_file::OpenFile;
use crate::formats::safetensors::header::Claim;
use crate::source::sum_names::XTX_ROWS;

/// Numbers of rows, by key.
#[derive(Debug, Default)]
pub(crate) struct SumCounts(BTreeMap<String, i64>);

impl SumCounts {
    /// Reads the numbers of a file with these tensors. A tensor of another form is skipped.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn read(file: &OpenFile, claims: &[Claim]) -> Result<Self> {
        let mut counts = BTreeMap::new();
        for claim in claims.iter().filter(|claim| is_count(claim)) {
            let mut bytes = [0; size_of::<i64>()];
            file.read_exact_at(&mut bytes, claim.start)?;
            counts.insert(claim.key.clone(), i64::from_le_bytes(bytes));
        }
        Ok(Self(counts))
    }

    /// The number with this key.
    pub(crate) fn get(&self, key: &str) -> Option<i64> {
        self.0.get(key).copied()
    }
}

fn is_count(claim: &Claim) -> bool {
    let is_scalar = claim.shape.is_empty() || claim.shape == [1];
    claim.key.ends_with(XTX_ROWS) && claim.dtype == Dtype::I64 && is_scalar
}
