//! A layer on a microcontroller: one struct over one lent buffer, in f32.
//!
//! [`DeviceLayer`] takes rows as they come ([`DeviceRows`]: f32, f16, bf16, integers with a scale),
//! keeps the packed R in f32, and solves QERA-exact by [`reconstruct_narrow`], which asks for E
//! column by column and holds none of it. Or it keeps l - 1 rows of a sketch of the output errors
//! in the place of R ([`ErrorSketch`](crate::statistics::ErrorSketch)): less memory, more
//! arithmetic. [`LayerMemory`] is the buffer: a static, say. Its sizes are checked when the program
//! is compiled. For 128 inputs and outputs at rank 8 it is 77 KiB with R and 33 KiB with 15 rows of
//! a sketch.
//!
//! What leaves the device is either A and B, or what it saw, as shards that the daemon folds as any
//! others: sums, and some blocks as rows ([`ShardWriter`]).
//!
//! Every loop runs in one fixed order of IEEE operations without fusion, so that a Cortex-M4F, a
//! RISC-V without floating point and a server give the same bits (`ci.sh embedded`).
//!
//! [`reconstruct_narrow`]: crate::reconstruct::reconstruct_narrow
//!
//! ```
//! use qera_core::device::{
//!     DeviceCorrection, DeviceLayer, DeviceRows, LayerMemory, exact_layer_numbers,
//!     exact_layer_workspace,
//! };
//! use qera_core::quantize::Mxint;
//!
//! const M: usize = 4; // inputs
//! const N: usize = 3; // outputs
//! const K: usize = 1; // rank
//! const WEIGHT: [f32; M * N] = [0.3, -0.7, 0.2, 0.9, -0.4, 0.6, 0.1, -0.8, 0.5, 0.25, -0.35, 0.7]; // [out, in], in flash
//! let mut memory = LayerMemory::<{ exact_layer_numbers(M, N, K) }, { exact_layer_workspace(N, K) }>::new();
//! let grid = Mxint::new(3, M)?;
//! let mut layer = DeviceLayer::<_, M, N, K>::exact(&mut memory, |first, columns| {
//!     let weight = &WEIGHT[first * M..][..columns.len()];
//!     if grid.quantize_dequantize(weight, M, columns).is_ok() {
//!         columns.iter_mut().zip(weight).for_each(|(e, w)| *e = w - *e); // E = W - W~
//!     }
//! })?;
//! layer.feed(DeviceRows::F32(&[1.0, 0.5, -0.2, 0.1, 0.9, 0.4, 0.3, -0.1]))?;
//! layer.feed(DeviceRows::Int8 { values: &[90, -30, 10, 5], scale: 0.01 })?;
//! assert_eq!(layer.progress().rows, 3);
//! let DeviceCorrection { a, b, error_without, error_with, .. } = layer.finish()?;
//! assert_eq!((a.len(), b.len()), (M * K, K * N)); // y = x (W~ + A B)
//! assert!(error_with < 0.2 * error_without);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod layer;
mod shard_writer;
mod values;

use core::fmt;

use crate::reconstruct::NarrowError;
use crate::rows::ShapeError;
use crate::statistics::{SketchError, StatisticError};

pub use layer::{
    DEVICE_BLOCK, DeviceCorrection, DeviceLayer, DeviceProgress, SENT_OF, exact_layer_numbers,
    exact_layer_workspace, sketched_layer_numbers, sketched_layer_workspace,
};
pub use shard_writer::{ShardError, ShardWriter};
pub use values::DeviceRows;

/// The buffer of a layer: all memory that it takes beside the stack.
#[derive(Debug)]
pub struct LayerMemory<const NUMBERS: usize, const WIDE: usize> {
    pub(crate) numbers: [f32; NUMBERS],
    pub(crate) wide: [f64; WIDE],
}

impl<const NUMBERS: usize, const WIDE: usize> LayerMemory<NUMBERS, WIDE> {
    /// Memory full of zeros.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            numbers: [0.0; NUMBERS],
            wide: [0.0; WIDE],
        }
    }
}

impl<const NUMBERS: usize, const WIDE: usize> Default for LayerMemory<NUMBERS, WIDE> {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a step on a device failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DeviceError {
    /// The values are not whole rows.
    Length {
        /// How many values were given.
        values: usize,
        /// How many values a row has.
        in_features: usize,
    },
    /// A row cannot be taken.
    Row {
        /// The index of the row among those that were fed.
        row: usize,
        /// Why it cannot be taken.
        shape: ShapeError,
    },
    /// The statistics refused rows.
    Statistic(StatisticError),
    /// A sketch refused rows, or gave no directions.
    Sketch(SketchError),
    /// A layer that gathers a sketch has no sums of x^T x to send.
    NoSums,
    /// The layer could not be solved.
    Solve(NarrowError),
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length {
                values,
                in_features,
            } => write!(f, "{values} values are not whole rows of {in_features}"),
            Self::Row { row, shape } => write!(f, "row {row} of those fed: {shape}"),
            Self::Statistic(error) => error.fmt(f),
            Self::Sketch(error) => error.fmt(f),
            Self::NoSums => write!(f, "a sketch holds no sums of x^T x"),
            Self::Solve(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for DeviceError {}

impl From<StatisticError> for DeviceError {
    fn from(error: StatisticError) -> Self {
        Self::Statistic(error)
    }
}
