//! One device, made ready.

use crate::device::context::Context;
use crate::device::kernels::Kernels;
use crate::device::libraries::{BlasFunctions, blas_names};
use crate::device::probe::find;
use crate::device::staging::Staging;
use crate::device::{blas, kernels};
use crate::error::DeviceError;
use crate::lane::{Lane, PANEL};
use crate::probe::{Device, Reason};
use crate::scratch::Scratch;
use crate::triangle::PIECE_ROWS;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Which device is used, and how much of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OffloadOptions {
    /// The device's number in the driver's list, from 0.
    pub ordinal: usize,
    /// Most of its memory.
    pub memory: DeviceMemory,
    /// Bytes of it that are needed at least: with less it is not opened.
    pub needed_bytes: u64,
}

/// How much of a device's memory is used; a sixteenth of what is free stays so in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceMemory {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of what is free when the device is opened.
    Share(u64),
}

impl DeviceMemory {
    /// Bytes, where so many are free.
    pub(crate) fn of(self, free: u64) -> u64 {
        /// What nobody is given: driver and libraries keep code and data of their own there, and
        /// do not ask us.
        const RESERVE: u64 = 16;
        let asked = match self {
            Self::Bytes(bytes) => bytes,
            Self::Share(share) => (free / 100).saturating_mul(share),
        };
        asked.min(free - free / RESERVE)
    }
}

impl Default for DeviceMemory {
    fn default() -> Self {
        Self::Share(100)
    }
}

/// A device: context, streams, libraries, kernels, buffers. What is computed with it holds an
/// [`Arc`] of it.
///
/// There are two lanes, each a stream of its own with its own handles: accumulation, and all else.
/// Within a lane one caller works at a time. After a call with which the device was lost every
/// later one answers the same error at once.
#[derive(Debug)]
pub struct Offload {
    device: Device,
    libraries: Vec<String>,
    pub(crate) kernels: Kernels,
    folding: Mutex<FoldLane>,
    solving: Mutex<SolveLane>,
    context: Arc<Context>,
}

/// The lane on which rows are folded.
#[derive(Debug)]
pub(crate) struct FoldLane {
    pub(crate) staging: Staging,
    pub(crate) lane: Lane,
    /// Rows times their factors.
    pub(crate) weighed: Scratch<f32>,
}

/// The lane on which everything else is computed.
#[derive(Debug)]
pub(crate) struct SolveLane {
    pub(crate) lane: Lane,
    /// Memory for the operands and the results of products.
    pub(crate) x: Scratch<f32>,
    pub(crate) y: Scratch<f32>,
    pub(crate) x_wide: Scratch<f64>,
    pub(crate) y_wide: Scratch<f64>,
    /// Columns of an operand in f64, or rows of P P^T.
    pub(crate) columns: Scratch<f64>,
    /// Parts of a trace.
    pub(crate) traces: Scratch<f64>,
}

/// The oldest device for which the kernels are: bf16 products came with it.
const CAPABILITY_MIN: (i32, i32) = (8, 0);

impl Offload {
    /// Makes a device ready: driver, cuBLAS, kernels.
    ///
    /// # Errors
    /// [`Reason`]: what is missing, or what failed.
    pub fn open(options: &OffloadOptions) -> Result<Self, Reason> {
        let found = find(options.ordinal)?;
        let (major, minor) = found.device.compute_capability;
        if (major, minor) < CAPABILITY_MIN {
            return Err(Reason::Capability { major, minor });
        }
        let searched = blas_names(found.driver_version);
        let functions = BlasFunctions::load(&searched);
        let functions = functions.map_err(|said| Reason::Blas { searched, said })?;
        let functions = Arc::new(functions);
        let context = Arc::new(Context::new(found.handle, options.memory)?);
        let (allowed, free, needed) = (context.left(), context.free(), options.needed_bytes);
        if allowed < needed {
            return Err(Reason::Memory {
                allowed,
                free,
                needed,
            });
        }
        let kernels = Kernels::load(&context)?;
        let folding = FoldLane {
            staging: Staging::new(&context)?,
            lane: Lane::new(&context, &functions)?,
            weighed: Scratch::new(),
        };
        let solving = SolveLane {
            lane: Lane::new(&context, &functions)?,
            x: Scratch::new(),
            y: Scratch::new(),
            x_wide: Scratch::new(),
            y_wide: Scratch::new(),
            columns: Scratch::new(),
            traces: Scratch::new(),
        };
        Ok(Self {
            libraries: libraries(found.driver_version, &solving)?,
            device: found.device,
            kernels,
            folding: Mutex::new(folding),
            solving: Mutex::new(solving),
            context,
        })
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> &Device {
        &self.device
    }

    /// What computes: the driver and cuBLAS, with their versions.
    #[must_use]
    pub fn libraries(&self) -> &[String] {
        &self.libraries
    }

    /// Bytes of the device that may still be taken.
    #[must_use]
    pub fn memory_left(&self) -> u64 {
        self.context.left()
    }

    /// With which call the device was lost, so that every other one is answered with the same
    /// error.
    #[must_use]
    pub fn lost(&self) -> Option<&DeviceError> {
        self.context.lost()
    }

    /// Whether it was.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost().is_some()
    }

    pub(crate) const fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(crate) fn folding(&self) -> MutexGuard<'_, FoldLane> {
        // Nothing here panics; and a lane that someone left half way is sound, its work is not.
        self.folding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn solving(&self) -> MutexGuard<'_, SolveLane> {
        self.solving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of the device that an [`Offload`] holds beside what is made with it, when the largest
/// matrix has `largest` rows or columns: workspaces, the twins of the page-locked buffers, sums of
/// panels, and columns and vectors of products.
#[must_use]
pub const fn shared_bytes(largest: usize) -> u64 {
    /// Vectors of a product at most, about; a trace takes as many columns as a piece has rows.
    const VECTORS: usize = 512;
    let row = largest as u64;
    let twins = pinned_bytes(largest);
    let weighed = PIECE_ROWS as u64 * 4 * row;
    let sums = PANEL as u64 * 4 * row;
    let columns = PANEL as u64 * 8 * row;
    let vectors = (PIECE_ROWS + VECTORS) as u64 * (4 + 8) * row;
    let traces = (kernels::PARTIAL_SUMS as u64 + 1) * 8 * row;
    2 * blas::WORKSPACE_BYTES as u64 + twins + weighed + sums + columns + vectors + traces
}

/// Bytes of page-locked host memory that an [`Offload`] holds where the widest rows that are folded
/// have `widest` numbers: two pieces of them.
#[must_use]
pub const fn pinned_bytes(widest: usize) -> u64 {
    2 * PIECE_ROWS as u64 * (4 * widest as u64 + 4)
}

/// The versions of driver and library in the form in which people write them.
fn libraries(driver_version: i32, solving: &SolveLane) -> Result<Vec<String>, DeviceError> {
    let (major, minor) = (driver_version / 1000, driver_version % 1000 / 10);
    let driver = format!("CUDA driver {major}.{minor}");
    let version = solving.lane.blas.version()?;
    let (major, minor) = (version / 10_000, version % 10_000 / 100);
    let blas = format!("cuBLAS {major}.{minor}.{}", version % 100);
    Ok(vec![driver, blas])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_all_that_is_free() {
        assert_eq!(DeviceMemory::Share(80).of(1_000_000), 800_000);
        assert_eq!(DeviceMemory::Share(100).of(1_600), 1_500);
        assert_eq!(DeviceMemory::Bytes(70).of(1_600), 70);
        assert_eq!(DeviceMemory::Bytes(u64::MAX).of(1_600), 1_500);
    }
}
