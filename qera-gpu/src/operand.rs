//! A large matrix, uploaded once and multiplied by a few vectors many times.

use crate::device::blas::Product;
use crate::device::memory::{DeviceBuffer, Span};
use crate::error::{DeviceError, check_length};
use crate::offload::{Offload, SolveLane, WIDE_COLUMNS};
use core::ops::Range;
use std::sync::Arc;

/// B, depth x n by columns, in f32, on the device: the error of a layer, or R.
///
/// Products in f32 are of numbers narrowed to f32, rounded and summed in f32, as on the host (in
/// another order). Those in f64 are of the same f32 numbers of B, in f64 throughout.
#[derive(Debug)]
pub struct DeviceOperand {
    values: DeviceBuffer<f32>,
    depth: usize,
    n: usize,
    offload: Arc<Offload>,
}

/// What vectors are multiplied by: `count` vectors of `depth` numbers become `n` each.
struct Factor<'a> {
    count: usize,
    n: usize,
    depth: usize,
    b: Span<'a, f32>,
    transposed: bool,
}

/// A block of B.
struct Block {
    rows: Range<usize>,
    columns: Range<usize>,
}

impl DeviceOperand {
    /// Bytes of the device that it takes.
    #[must_use]
    pub const fn device_bytes(depth: usize, n: usize) -> u64 {
        depth as u64 * n as u64 * size_of::<f32>() as u64
    }

    /// Uploads columns of `depth` numbers.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn new(offload: &Arc<Offload>, values: &[f32], depth: usize) -> Result<Self, DeviceError> {
        let n = values.len() / depth.max(1);
        let operand = Self::unwritten(offload, depth, n)?;
        let solving = offload.solving();
        solving.lane.stream.upload(operand.values.whole(), values)?;
        drop(solving);
        Ok(operand)
    }

    /// Room for one.
    pub(crate) fn unwritten(
        offload: &Arc<Offload>,
        depth: usize,
        n: usize,
    ) -> Result<Self, DeviceError> {
        Ok(Self {
            values: DeviceBuffer::new(offload.context(), depth.saturating_mul(n))?,
            depth,
            n,
            offload: Arc::clone(offload),
        })
    }

    pub(crate) const fn values(&self) -> Span<'_, f32> {
        self.values.whole()
    }

    /// X^T B, `count` x n by columns, for `x` = X^T, `count` x depth by columns; in f32.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn times(&self, x: &[f64], count: usize, out: &mut [f64]) -> Result<(), DeviceError> {
        let whole = Block {
            rows: 0..self.depth,
            columns: 0..self.n,
        };
        self.block_times(&whole, x, count, out)
    }

    /// The same with rows `rows` and columns `columns` of B alone: `x` is `count` x `rows.len()`.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn times_part(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        x: &[f64],
        count: usize,
        out: &mut [f64],
    ) -> Result<(), DeviceError> {
        check_range("rows of an operand", &rows, self.depth)?;
        check_range("columns of an operand", &columns, self.n)?;
        self.block_times(&Block { rows, columns }, x, count, out)
    }

    fn block_times(
        &self,
        block: &Block,
        x: &[f64],
        count: usize,
        out: &mut [f64],
    ) -> Result<(), DeviceError> {
        let (depth, n) = (block.rows.len(), block.columns.len());
        check_length("vectors to multiply", x.len(), count.saturating_mul(depth))?;
        check_length("products", out.len(), count.saturating_mul(n))?;
        let first = block.columns.start * self.depth + block.rows.start;
        let factor = Factor {
            count,
            n,
            depth,
            b: self.values().part(first, self.values().len - first)?,
            transposed: false,
        };
        self.in_f32(x, out, factor)
    }

    /// Y^T B^T, `count` x depth by columns, for `y` = Y^T, `count` x n by columns; in f32.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn transposed_times(
        &self,
        y: &[f64],
        count: usize,
        out: &mut [f64],
    ) -> Result<(), DeviceError> {
        check_length("vectors to multiply", y.len(), count.saturating_mul(self.n))?;
        check_length("products", out.len(), count.saturating_mul(self.depth))?;
        let factor = Factor {
            count,
            n: self.depth,
            depth: self.n,
            b: self.values(),
            transposed: true,
        };
        self.in_f32(y, out, factor)
    }

    /// A product by way of the lane's scratch: narrowed, uploaded, multiplied, downloaded, widened.
    fn in_f32(&self, x: &[f64], out: &mut [f64], factor: Factor<'_>) -> Result<(), DeviceError> {
        if out.is_empty() {
            return Ok(());
        }
        let narrow: Vec<f32> = x.iter().map(|x| narrow(*x)).collect();
        let mut products = vec![0.0_f32; out.len()];
        let mut solving = self.offload.solving();
        let SolveLane { lane, x, y, .. } = &mut *solving;
        let (x, y) = (
            x.of(lane.context(), narrow.len())?,
            y.of(lane.context(), out.len())?,
        );
        lane.stream.upload(x, &narrow)?;
        lane.blas.multiply_f32(&Product {
            m: factor.count,
            n: factor.n,
            depth: factor.depth,
            a: x,
            a_stride: factor.count,
            b: factor.b,
            b_stride: self.depth,
            b_transposed: factor.transposed,
            c: y,
            add: false,
        })?;
        lane.stream.download(y, &mut products)?;
        drop(solving);
        out.iter_mut()
            .zip(&products)
            .for_each(|(to, from)| *to = f64::from(*from));
        Ok(())
    }

    /// [`times`](Self::times) with products and sums in f64.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn times_f64(&self, x: &[f64], count: usize, out: &mut [f64]) -> Result<(), DeviceError> {
        check_length(
            "vectors to multiply",
            x.len(),
            count.saturating_mul(self.depth),
        )?;
        check_length("products", out.len(), count.saturating_mul(self.n))?;
        self.in_f64(x, count, out, false)
    }

    /// [`transposed_times`](Self::transposed_times) with products and sums in f64.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn transposed_times_f64(
        &self,
        y: &[f64],
        count: usize,
        out: &mut [f64],
    ) -> Result<(), DeviceError> {
        check_length("vectors to multiply", y.len(), count.saturating_mul(self.n))?;
        check_length("products", out.len(), count.saturating_mul(self.depth))?;
        self.in_f64(y, count, out, true)
    }

    /// Products with B widened some columns at a time.
    fn in_f64(
        &self,
        x: &[f64],
        count: usize,
        out: &mut [f64],
        transposed: bool,
    ) -> Result<(), DeviceError> {
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
        let wide = columns.of(lane.context(), self.depth * WIDE_COLUMNS.min(self.n))?;
        lane.stream.upload(there, x)?;
        if self.n == 0 {
            lane.stream.clear(products)?;
        }
        for first in (0..self.n).step_by(WIDE_COLUMNS) {
            let range = first..(first + WIDE_COLUMNS).min(self.n);
            let numbers = self.depth * range.len();
            let (from, to) = (
                self.values().part(self.depth * first, numbers)?,
                wide.part(0, numbers)?,
            );
            self.offload.kernels.widen(&lane.stream, from, to)?;
            let (from, len) = (count * first, count * range.len());
            lane.blas.multiply_f64(&if transposed {
                Product {
                    m: count,
                    n: self.depth,
                    depth: range.len(),
                    a: there.part(from, len)?,
                    a_stride: count,
                    b: to,
                    b_stride: self.depth,
                    b_transposed: true,
                    c: products,
                    add: first > 0,
                }
            } else {
                Product {
                    m: count,
                    n: range.len(),
                    depth: self.depth,
                    a: there,
                    a_stride: count,
                    b: to,
                    b_stride: self.depth,
                    b_transposed: false,
                    c: products.part(from, len)?,
                    add: false,
                }
            })?;
        }
        lane.stream.download(products, out)
    }
}

fn check_range(what: &'static str, range: &Range<usize>, len: usize) -> Result<(), DeviceError> {
    if range.start <= range.end && range.end <= len {
        return Ok(());
    }
    Err(DeviceError::Length {
        what,
        expected: len,
        found: range.end,
    })
}

/// The nearest f32.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding is what is wanted"
)]
const fn narrow(value: f64) -> f32 {
    value as f32
}
