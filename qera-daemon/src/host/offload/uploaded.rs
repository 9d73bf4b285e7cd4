//! A matrix on the device, which is there once and multiplied by a few vectors many times.

use faer::{Mat, MatRef};
use qera_gpu::DeviceOperand;

use crate::host::column_major::ColumnMajor;
use crate::host::offload::lent::{LentDevice, Trust, contiguous};

/// The copy of an f32 matrix B, depth x n by columns.
#[derive(Debug)]
pub(crate) struct Uploaded<'a> {
    device: &'a LentDevice<'a>,
    there: DeviceOperand,
    depth: usize,
    n: usize,
    trust: Trust,
}

impl<'a> Uploaded<'a> {
    /// Uploads a matrix; `None` when that fails, which is noted.
    pub(crate) fn new(device: &'a LentDevice<'a>, matrix: ColumnMajor<'_>) -> Option<Self> {
        let offload = &device.accelerator.offload;
        let there = DeviceOperand::new(offload, matrix.values, matrix.rows);
        Some(Self {
            device,
            there: device.noted(WHAT, there)?,
            depth: matrix.rows,
            n: matrix.columns(),
            trust: Trust::default(),
        })
    }

    /// R / `scale`, made there of the R that was lent with the device (m x m); `None` where this R
    /// is another one.
    pub(crate) fn scaled_r(
        device: &'a LentDevice<'a>,
        packed: &[f64],
        m: usize,
        scale: f64,
    ) -> Option<Self> {
        Some(Self {
            device,
            there: device.r_scaled(packed, scale)?,
            depth: m,
            n: m,
            trust: Trust::default(),
        })
    }

    /// X^T B as b x n, for `x` = X^T (b x depth), by f32 products or in f64; `None` when the device
    /// fails.
    pub(crate) fn times(&self, x: MatRef<'_, f64>, in_f64: bool) -> Option<Mat<f64>> {
        let times = if in_f64 {
            DeviceOperand::times_f64
        } else {
            DeviceOperand::times
        };
        self.product(x, self.n, times)
    }

    /// Y^T B^T as b x depth, for `y` = Y^T (b x n), alike.
    pub(crate) fn transposed_times(&self, y: MatRef<'_, f64>, in_f64: bool) -> Option<Mat<f64>> {
        let times = if in_f64 {
            DeviceOperand::transposed_times_f64
        } else {
            DeviceOperand::transposed_times
        };
        self.product(y, self.depth, times)
    }

    fn product(&self, x: MatRef<'_, f64>, n: usize, times: Times) -> Option<Mat<f64>> {
        let b = x.nrows();
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
