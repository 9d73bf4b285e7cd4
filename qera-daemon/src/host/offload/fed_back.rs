//! The part of rounding with feedback that a device takes: what inputs that are rounded leave to
//! those before them.

use core::ops::Range;

use qera_gpu::DeviceFeedback;

use crate::host::offload::lent::{LentDevice, Trust};

/// The factor of a metric and the errors of all output columns, on the device.
#[derive(Debug)]
pub(crate) struct FedBack<'a> {
    device: &'a LentDevice<'a>,
    there: DeviceFeedback,
    outputs: usize,
    trust: Trust,
}

impl<'a> FedBack<'a> {
    /// Uploads a factor (m x m, by columns) for so many output columns; `None` when that fails,
    /// which is noted.
    pub(crate) fn new(
        device: &'a LentDevice<'a>,
        factor: &[f32],
        m: usize,
        outputs: usize,
    ) -> Option<Self> {
        let there = DeviceFeedback::new(&device.accelerator.offload, factor, m, outputs);
        Some(Self {
            device,
            there: device.noted(WHAT, there)?,
            outputs,
            trust: Trust::default(),
        })
    }

    /// The sums over the errors of all later inputs, for each of these inputs a number for every
    /// output column; `None` when the device fails.
    pub(crate) fn due(&self, inputs: Range<usize>) -> Option<Vec<f32>> {
        let mut sums = vec![0.0; inputs.len() * self.outputs];
        let call = || self.there.due(inputs, &mut sums);
        self.device.ask(&self.trust, WHAT, call)?;
        Some(sums)
    }

    /// Hands over the errors of inputs that are rounded, laid out alike; `None` when the device
    /// fails.
    pub(crate) fn take(&mut self, inputs: Range<usize>, errors: &[f32]) -> Option<()> {
        let there = &mut self.there;
        let call = || there.take(inputs, errors);
        self.device.ask(&self.trust, WHAT, call)
    }
}

/// What is multiplied, in words.
const WHAT: &str = "the factor of a metric";
