//! R in f64 on the device: products, traces, and its f32 copy for solves.

use crate::device::blas::Product;
use crate::device::kernels::{PARTIAL_SUMS, PackedPanel, TraceParts};
use crate::device::memory::DeviceBuffer;
use crate::error::{DeviceError, check_length};
use crate::lane::RowsThere;
use crate::offload::{Offload, SolveLane, WIDE_COLUMNS};
use crate::operand::DeviceOperand;
use crate::triangle::PIECE_ROWS;
use qera_core::dtype::FloatDtype;
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
        for first in (0..m).step_by(WIDE_COLUMNS) {
            let count = WIDE_COLUMNS.min(m - first);
            let panel = self.panel(first, count);
            let columns = operand.values().part(first * m, count * m)?;
            let stream = &solving.lane.stream;
            self.offload
                .kernels
                .unpack_scaled(stream, &panel, columns, scale)?;
        }
        drop(solving);
        Ok(operand)
    }

    /// X^T R, `count` x m by columns, for `x` = X^T, `count` x m by columns; in f64 throughout.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn times(&self, x: &[f64], count: usize, out: &mut [f64]) -> Result<(), DeviceError> {
        let m = self.m;
        check_length("vectors to multiply", x.len(), count.saturating_mul(m))?;
        check_length("products", out.len(), count.saturating_mul(m))?;
        if out.is_empty() {
            return Ok(());
        }
        let mut solving = self.offload.solving();
        let SolveLane {
            lane,
            x_wide,
            y_wide,
            columns,
            ..
        } = &mut *solving;
        let there = x_wide.of(lane.context(), x.len())?;
        let products = y_wide.of(lane.context(), out.len())?;
        let wide = columns.of(lane.context(), m * WIDE_COLUMNS.min(m))?;
        lane.stream.upload(there, x)?;
        for first in (0..m).step_by(WIDE_COLUMNS) {
            let width = WIDE_COLUMNS.min(m - first);
            let b = wide.part(0, m * width)?;
            let panel = self.panel(first, width);
            self.offload
                .kernels
                .unpack_columns(&lane.stream, &panel, b)?;
            lane.blas.multiply_f64(&Product {
                m: count,
                n: width,
                depth: m,
                a: there,
                b,
                b_stride: m,
                b_transposed: false,
                c: products.part(count * first, count * width)?,
                add: false,
            })?;
        }
        lane.stream.download(products, out)
    }

    /// tr(R P P^T) for P, m x n by columns: P P^T off the diagonal in f32 over at most
    /// [`PIECE_ROWS`] columns, its diagonal and everything after it in f64; never below 0.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn trace_with(&self, p: &[f32]) -> Result<f64, DeviceError> {
        let m = self.m;
        let columns_count = p.len() / m.max(1);
        check_length("P of a trace", p.len(), columns_count * m)?;
        if p.is_empty() {
            return Ok(0.0);
        }
        let mut rows_here = vec![0.0; m];
        let mut solving = self.offload.solving();
        let SolveLane {
            lane,
            x,
            x_wide,
            y_wide,
            columns,
            ..
        } = &mut *solving;
        let context = Arc::clone(lane.context());
        let stream = Arc::clone(&lane.stream);
        let kernels = &self.offload.kernels;
        let partial = columns.of(&context, m * PARTIAL_SUMS)?;
        let squares = x_wide.of(&context, m)?;
        stream.clear(partial)?;
        stream.clear(squares)?;
        for piece in p.chunks(PIECE_ROWS * m) {
            let there = x.of(&context, piece.len())?;
            stream.upload(there, piece)?;
            kernels.add_squares(&stream, there, squares)?;
            let rows = RowsThere {
                bytes: there.bytes(),
                dtype: FloatDtype::F32,
                count: piece.len() / m,
                in_features: m,
            };
            lane.gram_panels(self.packed.whole(), rows, |stream, panel, sums| {
                kernels.trace_panel(stream, panel, sums, partial)
            })?;
        }
        let rows = y_wide.of(&context, m)?;
        let parts = TraceParts {
            packed: self.packed.whole(),
            partial,
            squares,
            rows,
        };
        kernels.trace_rows(&stream, &parts)?;
        stream.download(rows, &mut rows_here)?;
        drop(solving);
        // Rounding may leave -1e-17 where the truth is 0.
        Ok(rows_here.iter().sum::<f64>().max(0.0))
    }
}
