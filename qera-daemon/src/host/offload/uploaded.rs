//! A matrix on the device, uploaded once to be multiplied many times.

use faer::{Mat, MatRef};
use qera_gpu::DeviceOperand;

use crate::host::offload::lent::{LentDevice, Trust, contiguous};

/// The copy of an f32 matrix, depth x n by columns.
#[derive(Debug)]
pub(crate) struct Uploaded<'a> {
    device: &'a LentDevice<'a>,
    there: DeviceOperand,
    columns: usize,
    trust: Trust,
}

impl<'a> Uploaded<'a> {
    /// Uploads a matrix; `None` when that fails, which is noted.
    pub(crate) fn new(device: &'a LentDevice<'a>, values: &[f32], depth: usize) -> Option<Self> {
        let there = DeviceOperand::new(&device.accelerator.offload, values, depth);
        Some(Self {
            device,
            there: device.noted(WHAT, there)?,
            columns: values.len() / depth.max(1),
            trust: Trust::default(),
        })
    }

    /// X^T B as b x n, for `x` = X^T (b x depth), by f32 products; `None` when the device fails.
    pub(crate) fn times(&self, x: MatRef<'_, f64>) -> Option<Mat<f64>> {
        self.product(x, DeviceOperand::times)
    }

    /// The same with products and sums in f64.
    pub(crate) fn times_f64(&self, x: MatRef<'_, f64>) -> Option<Mat<f64>> {
        self.product(x, DeviceOperand::times_f64)
    }

    fn product(&self, x: MatRef<'_, f64>, times: Times) -> Option<Mat<f64>> {
        let (b, n) = (x.nrows(), self.columns);
        let mut product = vec![0.0; b * n];
        let call = || times(&self.there, &contiguous(x), b, &mut product);
        self.device.ask(&self.trust, WHAT, call)?;
        Some(MatRef::from_column_major_slice(&product, b, n).to_owned())
    }
}

/// What an operand is, in words.
const WHAT: &str = "an operand";

/// One of the products.
type Times = fn(&DeviceOperand, &[f64], usize, &mut [f64]) -> Result<(), qera_gpu::DeviceError>;
