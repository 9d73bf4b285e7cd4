//! A large matrix, uploaded once and multiplied by a few vectors many times.

use crate::device::memory::{DeviceBuffer, Span};
use crate::error::DeviceError;
use crate::factor::{Factor, Vectors};
use crate::offload::Offload;
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

    const fn factor(&self, transposed: bool) -> Factor {
        Factor {
            depth: self.depth,
            n: self.n,
            transposed,
        }
    }

    /// X^T B, `count` x n by columns, for `x` = X^T, `count` x depth by columns; in f32.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn times(&self, x: &[f64], count: usize, out: &mut [f64]) -> Result<(), DeviceError> {
        self.in_f32(Vectors { count, x, out }, false)
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
        self.in_f32(Vectors { count, x: y, out }, true)
    }

    /// [`times`](Self::times) with products and sums in f64.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn times_f64(&self, x: &[f64], count: usize, out: &mut [f64]) -> Result<(), DeviceError> {
        self.in_f64(Vectors { count, x, out }, false)
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
        self.in_f64(Vectors { count, x: y, out }, true)
    }

    fn in_f32(&self, vectors: Vectors<'_>, transposed: bool) -> Result<(), DeviceError> {
        let mut solving = self.offload.solving();
        solving.multiply_f32(self.factor(transposed), self.values(), vectors)
    }

    fn in_f64(&self, vectors: Vectors<'_>, transposed: bool) -> Result<(), DeviceError> {
        let widened = |stream: &_, columns: core::ops::Range<usize>, to: Span<'_, f64>| {
            let from = self.values().part(self.depth * columns.start, to.len)?;
            self.offload.kernels.widen(stream, from, to)
        };
        let mut solving = self.offload.solving();
        solving.multiply_f64(self.factor(transposed), widened, vectors)
    }
}
