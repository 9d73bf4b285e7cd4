//! Rounding with feedback: what the inputs rounded so far leave to those before them.

use crate::device::blas::Product;
use crate::device::memory::DeviceBuffer;
use crate::error::{DeviceError, check_length};
use crate::offload::{Offload, SolveLane};
use crate::operand::DeviceOperand;
use core::ops::Range;
use std::sync::Arc;

/// The factor U of a metric, m x m by columns, of which u_jk below the diagonal counts, and the
/// errors e of n output columns, as far as their inputs are rounded: from the last to the first.
#[derive(Debug)]
pub struct DeviceFeedback {
    u: DeviceOperand,
    /// Those of input j at j n.
    errors: DeviceBuffer<f32>,
    m: usize,
    n: usize,
    offload: Arc<Offload>,
}

impl DeviceFeedback {
    /// Bytes of the device that it takes.
    #[must_use]
    pub const fn device_bytes(m: usize, n: usize) -> u64 {
        DeviceOperand::device_bytes(m, m) + DeviceOperand::device_bytes(m, n)
    }

    /// Uploads U, for `n` output columns of which no input is rounded.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn new(offload: &Arc<Offload>, u: &[f32], m: usize, n: usize) -> Result<Self, DeviceError> {
        check_length("the factor of a metric", u.len(), m.saturating_mul(m))?;
        Ok(Self {
            u: DeviceOperand::new(offload, u, m)?,
            errors: DeviceBuffer::new(offload.context(), m.saturating_mul(n))?,
            m,
            n,
            offload: Arc::clone(offload),
        })
    }

    /// Takes the errors of inputs that are rounded now, n numbers each.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn take(&mut self, inputs: Range<usize>, errors: &[f32]) -> Result<(), DeviceError> {
        let first = inputs.start.saturating_mul(self.n);
        let to = self.errors.whole().part(first, errors.len())?;
        check_length("errors", errors.len(), inputs.len().saturating_mul(self.n))?;
        self.offload.solving().lane.stream.upload(to, errors)
    }

    /// The sum over all j from `inputs.end` on of e_j u_jk, for each input k of `inputs`: n numbers
    /// each, in f32. The errors of these j have to be taken.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn due(&self, inputs: Range<usize>, out: &mut [f32]) -> Result<(), DeviceError> {
        let (m, n, end) = (self.m, self.n, inputs.end);
        check_length("sums of errors", out.len(), inputs.len().saturating_mul(n))?;
        let later = m.checked_sub(end).ok_or(DeviceError::Length {
            what: "inputs",
            expected: m,
            found: end,
        })?;
        if later == 0 || out.is_empty() {
            out.fill(0.0);
            return Ok(());
        }
        let errors = self.errors.whole().part(end * n, later * n)?;
        let u = self.u.values();
        let u = u.part(inputs.start * m + end, u.len - inputs.start * m - end)?;
        let mut solving = self.offload.solving();
        let SolveLane { lane, y, .. } = &mut *solving;
        let sums = y.of(lane.context(), out.len())?;
        lane.blas.multiply(&Product {
            m: n,
            n: inputs.len(),
            depth: later,
            a: errors,
            a_stride: n,
            b: u,
            b_stride: m,
            b_transposed: false,
            c: sums,
            add: false,
        })?;
        lane.stream.download(sums, out)
    }
}
