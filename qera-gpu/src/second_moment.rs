//! R in f64 on the device: products, traces, and its f32 copy for solves.

use crate::device::blas::Product;
use crate::device::kernels::{PARTIAL_SUMS, PackedPanel};
use crate::device::memory::{DeviceBuffer, Span};
use crate::error::{DeviceError, check_length};
use crate::factor::{Factor, Vectors, pieces};
use crate::lane::PANEL;
use crate::offload::{Offload, SolveLane};
use crate::operand::DeviceOperand;
use crate::triangle::PIECE_ROWS;
use qera_core::packed::packed_len;
use std::sync::Arc;

/// A frozen R: the packed upper triangle in f64.
#[derive(Debug)]
pub struct DeviceR {
    packed: DeviceBuffer<f64>,
    m: usize,
    offload: Arc<Offload>,
}

impl DeviceR {
    /// Bytes of the device that it takes.
    #[must_use]
    pub const fn device_bytes(m: usize) -> u64 {
        packed_len(m) as u64 * size_of::<f64>() as u64
    }

    /// Uploads the packed triangle.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn new(offload: &Arc<Offload>, packed: &[f64], m: usize) -> Result<Self, DeviceError> {
        check_length("a packed triangle", packed.len(), packed_len(m))?;
        let there = DeviceBuffer::new(offload.context(), packed.len())?;
        offload
            .solving()
            .lane
            .stream
            .upload(there.whole(), packed)?;
        Ok(Self {
            packed: there,
            m,
            offload: Arc::clone(offload),
        })
    }

    const fn panel(&self, first: usize, count: usize) -> PackedPanel<'_> {
        PackedPanel {
            packed: self.packed.whole(),
            in_features: self.m,
            first,
            count,
        }
    }

    /// R / `scale` in f32, whole, made on the device.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn scaled(&self, scale: f64) -> Result<DeviceOperand, DeviceError> {
        let m = self.m;
        let operand = DeviceOperand::unwritten(&self.offload, m, m)?;
        let solving = self.offload.solving();
        for range in pieces(m) {
            let panel = self.panel(range.start, range.len());
            let columns = operand.values().part(range.start * m, range.len() * m)?;
            let stream = &solving.lane.stream;
            let kernels = &self.offload.kernels;
            kernels.unpack_scaled(stream, &panel, columns, scale)?;
        }
        drop(solving);
        Ok(operand)
    }

    /// X^T R, `count` x m by columns, for `x` = X^T, `count` x m by columns; in f64 throughout.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn times(&self, x: &[f64], count: usize, out: &mut [f64]) -> Result<(), DeviceError> {
        let factor = Factor {
            depth: self.m,
            n: self.m,
            transposed: false,
        };
        let unpacked = |stream: &_, columns: core::ops::Range<usize>, to: Span<'_, f64>| {
            let panel = self.panel(columns.start, columns.len());
            self.offload.kernels.unpack_columns(stream, &panel, to)
        };
        let mut solving = self.offload.solving();
        solving.multiply_f64(factor, unpacked, Vectors { count, x, out })
    }

    /// tr(R P P^T) for P, m x n by columns, in f64 throughout; never below 0.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn trace_with(&self, p: &[f32]) -> Result<f64, DeviceError> {
        let m = self.m;
        let n = p.len() / m.max(1);
        check_length("P of a trace", p.len(), n * m)?;
        let mut rows_here = vec![0.0; m];
        let kernels = &self.offload.kernels;
        let mut solving = self.offload.solving();
        let SolveLane {
            lane,
            x,
            x_wide,
            columns,
            traces,
            ..
        } = &mut *solving;
        let (context, stream) = (Arc::clone(lane.context()), Arc::clone(&lane.stream));
        let traces = traces.of(&context, m * (PARTIAL_SUMS + 1))?;
        let partial = traces.part(0, m * PARTIAL_SUMS)?;
        let rows = traces.part(m * PARTIAL_SUMS, m)?;
        let sums = columns.of(&context, m * PANEL.min(m))?;
        stream.clear(partial)?;
        for piece in p.chunks((PIECE_ROWS * m).max(1)) {
            let narrow = x.of(&context, piece.len())?;
            let wide = x_wide.of(&context, piece.len())?;
            stream.upload(narrow, piece)?;
            kernels.widen(&stream, narrow, wide)?;
            for first in (0..m).step_by(PANEL) {
                let panel = self.panel(first, PANEL.min(m - first));
                let sums = sums.part(0, panel.count * (m - first))?;
                lane.blas.multiply(&self.outer(&panel, wide, sums)?)?;
                kernels.trace_panel(&stream, &panel, sums, partial)?;
            }
        }
        kernels.trace_rows(&stream, partial, rows)?;
        stream.download(rows, &mut rows_here)?;
        drop(solving);
        // Rounding may leave -1e-17 where the truth is 0.
        Ok(rows_here.iter().sum::<f64>().max(0.0))
    }

    /// Rows of P P^T, from the diagonal's block on, for columns of P.
    fn outer<'a>(
        &self,
        panel: &PackedPanel<'_>,
        p: Span<'a, f64>,
        sums: Span<'a, f64>,
    ) -> Result<Product<'a, f64>, DeviceError> {
        let (m, first) = (self.m, panel.first);
        let from = p.part(first, p.len - first)?;
        Ok(Product {
            m: m - first,
            n: panel.count,
            depth: p.len / m,
            a: from,
            a_stride: m,
            b: from,
            b_stride: m,
            b_transposed: true,
            c: sums,
            add: false,
        })
    }
}
