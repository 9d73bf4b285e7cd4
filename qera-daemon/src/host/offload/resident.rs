//! R of one site on a device, and the rows that the host's R lacks.
//!
//! The device is asked to fold and answers later, or never. So the rows stay here until what they
//! were folded into has come down ([`Resident::fold_down`]), and the host's R is that of the last
//! time; where the device fails they are folded into it here, in the same order
//! ([`Resident::fold_again`]). Rows of massive channels are folded here in f64 beside it, as the
//! host does, and take the place of what the device has of them.

use qera_gpu::DeviceError;

use crate::host::compute::Compute;
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::rank_update::Scratch;
use crate::host::kernels::row_weights::{Extent, RowWeights};
use crate::host::kernels::stored::StoredRows;
use crate::host::offload::row_sums::RowSums;
use crate::host::second_moment::massive::MassiveRows;
use crate::host::second_moment::{fold_rows, shares};
use qera_core::dtype::FloatDtype;

/// Rows that were folded on the device.
#[derive(Debug)]
pub(crate) struct FoldedRows {
    /// As they came.
    pub(crate) bytes: PageVec<u8>,
    /// Type of the numbers.
    pub(crate) dtype: FloatDtype,
    /// Width of a row.
    pub(crate) in_features: usize,
    /// What each weighs.
    pub(crate) weights: Option<RowWeights>,
    /// What R was the mean of before.
    pub(crate) seen: Extent,
}

impl FoldedRows {
    fn stored(&self) -> StoredRows<'_> {
        let rows = StoredRows::bytes(&self.bytes, self.dtype, self.in_features);
        rows.weighted(self.weights.as_ref())
    }
}

/// R on the device.
#[derive(Debug)]
pub(crate) struct Resident<S> {
    sums: S,
    /// The same channels from one fold-down to the next.
    massive: MassiveRows,
    kept: Vec<FoldedRows>,
}

impl<S: RowSums> Resident<S> {
    /// Takes R as the host has it, these channels being massive.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub(crate) fn begin(
        device: &S::Device,
        r: &[f64],
        in_features: usize,
        massive: Vec<usize>,
    ) -> Result<Self, DeviceError> {
        Ok(Self {
            sums: S::begin(device, r, in_features)?,
            massive: MassiveRows::before(massive, r, in_features),
            kept: Vec::new(),
        })
    }

    /// Whether it can go on where these channels are massive: else R has to come down first.
    pub(crate) fn goes_on_with(&self, massive: &[usize]) -> bool {
        self.massive.channels() == massive
    }

    /// Folds rows on the device; they are still to be [kept](Self::keep).
    ///
    /// # Errors
    /// [`DeviceError`]: nothing here has changed.
    pub(crate) fn fold(&mut self, rows: StoredRows<'_>, seen: &Extent) -> Result<(), DeviceError> {
        self.sums.fold(rows, seen.weight)?;
        self.massive
            .take(rows, shares(rows, seen.weight)(rows.rows()));
        Ok(())
    }

    /// Keeps rows that were folded.
    pub(crate) fn keep(&mut self, rows: FoldedRows) {
        self.kept.push(rows);
    }

    /// Bytes of the rows kept.
    pub(crate) fn kept_bytes(&self) -> u64 {
        let bytes = self.kept.iter().map(|rows| rows.bytes.len() as u64);
        bytes.sum()
    }

    /// R with all rows, in memory of its own; `None` where the host's has them all.
    ///
    /// # Errors
    /// [`DeviceError`]: nothing here has changed.
    pub(crate) fn fold_down(&mut self, r: &[f64]) -> Result<Option<PageVec<f64>>, DeviceError> {
        if self.kept.is_empty() {
            return Ok(None);
        }
        let mut fresh = PageVec::unwritten(r.len());
        self.sums.read(&mut fresh)?;
        self.massive.put(&mut fresh);
        self.kept.clear();
        Ok(Some(fresh))
    }

    /// Folds the rows kept into the host's R, which is that of the last fold-down.
    pub(crate) fn fold_again(self, compute: Compute<'_>, r: &mut [f64], scratch: &mut Scratch) {
        for rows in self.kept {
            let massive = self.massive.channels();
            fold_rows(compute, rows.stored(), &rows.seen, massive, r, scratch);
        }
    }
}
