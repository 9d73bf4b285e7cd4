//! R as it is accumulated, on the device.

use crate::device::kernels::{FactoredRows, Fold};
use crate::device::memory::DeviceBuffer;
use crate::error::{DeviceError, check_length};
use crate::lane::RowsThere;
use crate::offload::{FoldLane, Offload};
use qera_core::dtype::FloatDtype;
use qera_core::packed::packed_len;
use std::sync::Arc;

/// The most rows whose products are summed in f32 before they are folded in f64.
pub const PIECE_ROWS: usize = 512;

/// Rows as they came.
#[derive(Clone, Copy, Debug)]
pub struct DeviceRows<'a> {
    /// Little-endian numbers, row by row.
    pub bytes: &'a [u8],
    /// The type of the numbers.
    pub dtype: FloatDtype,
    /// Numbers of a row.
    pub in_features: usize,
    /// What each row weighs, where they do not all weigh 1; at most 1 for the largest, so that no
    /// product grows. Rows are multiplied by the square root, in f32.
    pub weights: Option<&'a [f32]>,
}

/// How a piece of rows changes the mean: R <- `kept` R + `per_sum` X^T W X, in f64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PieceShare {
    /// Rows of the piece, at most [`PIECE_ROWS`].
    pub rows: usize,
    /// The factor by which the mean so far is multiplied.
    pub kept: f64,
    /// The factor by which the piece's sums are multiplied.
    pub per_sum: f64,
}

/// The packed upper triangle of R, in f64, on the device.
///
/// Products of bf16 and f16 numbers are exact, those of f32 numbers (and of rows with weights) are
/// rounded to f32; they are summed in f32 over a piece, and folded in f64.
#[derive(Debug)]
pub struct Triangle {
    packed: DeviceBuffer<f64>,
    in_features: usize,
    offload: Arc<Offload>,
}

/// A part of the rows, which changes the mean at once.
struct Piece<'a> {
    bytes: &'a [u8],
    weights: Option<&'a [f32]>,
    share: PieceShare,
}

impl Triangle {
    /// Bytes of the device that it takes.
    #[must_use]
    pub const fn device_bytes(in_features: usize) -> u64 {
        packed_len(in_features) as u64 * size_of::<f64>() as u64
    }

    /// Uploads what was accumulated so far: the packed triangle of R, m (m + 1) / 2 numbers.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn new(
        offload: &Arc<Offload>,
        packed: &[f64],
        in_features: usize,
    ) -> Result<Self, DeviceError> {
        check_length("a packed triangle", packed.len(), packed_len(in_features))?;
        let there = DeviceBuffer::new(offload.context(), packed.len())?;
        offload
            .folding()
            .lane
            .stream
            .upload(there.whole(), packed)?;
        Ok(Self {
            packed: there,
            in_features,
            offload: Arc::clone(offload),
        })
    }

    /// Folds rows in, in pieces, of which each has its own share of the mean. Returns when the
    /// bytes were copied; the work goes on beside the host, and what fails in it comes out at a
    /// later call, at [`read`](Self::read) at the latest. After an error this R may not be read.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn fold(&mut self, rows: DeviceRows<'_>, shares: &[PieceShare]) -> Result<(), DeviceError> {
        let bytes_of_row = self.in_features * rows.dtype.size_bytes();
        check_length("a row", rows.in_features, self.in_features)?;
        let count = shares.iter().map(|share| share.rows).sum::<usize>();
        check_length("rows", rows.bytes.len(), count.saturating_mul(bytes_of_row))?;
        if let Some(weights) = rows.weights {
            check_length("weights of rows", weights.len(), count)?;
        }
        if shares.iter().any(|share| share.rows > PIECE_ROWS) {
            return Err(DeviceError::Unsupported("a piece of more than 512 rows"));
        }
        let mut folding = self.offload.folding();
        let mut first = 0;
        for share in shares.iter().filter(|share| share.rows > 0) {
            let last = first + share.rows;
            let piece = Piece {
                bytes: &rows.bytes[first * bytes_of_row..last * bytes_of_row],
                weights: rows.weights.map(|weights| &weights[first..last]),
                share: *share,
            };
            self.fold_piece(&mut folding, rows.dtype, &piece)?;
            first = last;
        }
        Ok(())
    }

    fn fold_piece(
        &self,
        folding: &mut FoldLane,
        dtype: FloatDtype,
        piece: &Piece<'_>,
    ) -> Result<(), DeviceError> {
        let (m, count) = (self.in_features, piece.share.rows);
        let roots: Vec<u8> = piece.weights.map_or_else(Vec::new, |weights| {
            weights
                .iter()
                .flat_map(|weight| weight.sqrt().to_le_bytes())
                .collect()
        });
        let FoldLane {
            staging,
            lane,
            weighed,
        } = folding;
        let stream = Arc::clone(&lane.stream);
        staging.send(&stream, &[&roots, piece.bytes], |there| {
            let bytes = there.part(roots.len(), piece.bytes.len())?;
            let mut rows = RowsThere {
                bytes,
                dtype,
                count,
                in_features: m,
            };
            if !roots.is_empty() {
                let factored = FactoredRows {
                    rows: bytes,
                    dtype,
                    factors: there.part(0, roots.len())?.floats()?,
                    in_features: m,
                };
                let out = weighed.of(lane.context(), count * m)?;
                self.offload.kernels.weigh(&stream, &factored, out)?;
                rows.bytes = out.bytes();
                rows.dtype = FloatDtype::F32;
            }
            let PieceShare { kept, per_sum, .. } = piece.share;
            lane.gram_panels(self.packed.whole(), rows, |stream, panel, sums| {
                let fold = Fold { kept, per_sum };
                self.offload.kernels.fold_panel(stream, panel, sums, fold)
            })
        })
    }

    /// Waits for all folds, and reads R.
    ///
    /// # Errors
    /// [`DeviceError`], that of earlier work too; then `packed` is of no use.
    pub fn read(&mut self, packed: &mut [f64]) -> Result<(), DeviceError> {
        check_length(
            "a packed triangle",
            packed.len(),
            packed_len(self.in_features),
        )?;
        let folding = self.offload.folding();
        folding.lane.stream.download(self.packed.whole(), packed)
    }
}
