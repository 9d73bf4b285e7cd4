//! R where it is summed: a packed triangle of means that is not in this memory.

use std::sync::Arc;

use qera_core::dtype::FloatDtype;
use qera_gpu::{DeviceError, DeviceRows, PIECE_ROWS, PieceShare, Triangle};

use crate::host::kernels::stored::{StoredNumbers, StoredRows};
use crate::host::offload::accelerator::Accelerator;
use crate::host::second_moment::shares;

/// Means on a device. One that has failed is not asked again.
pub(crate) trait RowSums: Sized {
    /// Where they are.
    type Device: Clone;

    /// Takes R as it is, upper triangle by rows.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn begin(
        device: &Self::Device,
        packed: &[f64],
        in_features: usize,
    ) -> Result<Self, DeviceError>;

    /// Folds rows that come after a weight of `before`; the rows may still be read when this
    /// returns, or have been.
    ///
    /// # Errors
    /// [`DeviceError`], of these rows or of earlier ones.
    fn fold(&mut self, rows: StoredRows<'_>, before: f64) -> Result<(), DeviceError>;

    /// R with all rows folded so far.
    ///
    /// # Errors
    /// [`DeviceError`], of the reading or of earlier folds; `packed` is then worth nothing.
    fn read(&mut self, packed: &mut [f64]) -> Result<(), DeviceError>;
}

impl RowSums for Triangle {
    type Device = Arc<Accelerator>;

    fn begin(
        device: &Self::Device,
        packed: &[f64],
        in_features: usize,
    ) -> Result<Self, DeviceError> {
        Self::new(&device.offload, packed, in_features)
    }

    fn fold(&mut self, rows: StoredRows<'_>, before: f64) -> Result<(), DeviceError> {
        let pieces = pieces(rows, before);
        let weights = rows.weights.map(|weights| weights.in_units());
        let lent = |bytes, dtype| DeviceRows {
            bytes,
            dtype,
            in_features: rows.in_features,
            weights: weights.as_deref(),
        };
        match rows.numbers {
            StoredNumbers::Floats(numbers) => {
                let bytes = bytemuck::cast_slice(numbers);
                Self::fold(self, lent(bytes, FloatDtype::F32), &pieces)
            }
            StoredNumbers::Bytes(bytes, dtype) => Self::fold(self, lent(bytes, dtype), &pieces),
        }
    }

    fn read(&mut self, packed: &mut [f64]) -> Result<(), DeviceError> {
        Self::read(self, packed)
    }
}

/// How each piece of the rows changes R.
fn pieces(rows: StoredRows<'_>, before: f64) -> Vec<PieceShare> {
    let mut share = shares(rows, before);
    let firsts = (0..rows.rows()).step_by(PIECE_ROWS);
    firsts
        .map(|first| {
            let rows = PIECE_ROWS.min(rows.rows() - first);
            let share = share(rows);
            PieceShare {
                rows,
                kept: share.kept(),
                per_sum: share.per_sum(),
            }
        })
        .collect()
}
