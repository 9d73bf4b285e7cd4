//! From "use a device" to one that is trusted, or to the reason why there is none.

use qera_gpu::{Offload, OffloadOptions, Reason};

use crate::host::kernels::Kernel;
use crate::host::offload::accelerator::Accelerator;
use crate::host::offload::placement::Least;
use crate::host::offload::self_test::{Distrust, self_test};

/// Why no device is used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpeningError {
    /// It cannot be reached.
    #[error("{0}")]
    Unavailable(#[from] Reason),
    /// It can, and does not compute what the host does.
    #[error("{device} failed the self-test: {reason}")]
    Distrusted {
        /// Its name.
        device: String,
        /// What differs.
        reason: Distrust,
    },
}

/// Which device, and what of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AskedDevice {
    /// Its number among those that the driver lists.
    pub(crate) ordinal: usize,
    /// Its memory.
    pub(crate) memory: DeviceMemory,
    /// What is large enough for it.
    pub(crate) least: Least,
}

/// How much of a device's memory is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceMemory {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of what is free when the run begins.
    Share(u64),
}

impl AskedDevice {
    /// Opens it, and compares what it computes with what the host does.
    ///
    /// # Errors
    /// [`OpeningError`].
    pub(crate) fn open(&self, kernel: Kernel) -> Result<Accelerator, OpeningError> {
        let options = OffloadOptions {
            ordinal: self.ordinal,
            memory_bytes: match self.memory {
                DeviceMemory::Bytes(bytes) => Some(bytes),
                DeviceMemory::Share(_) => None,
            },
        };
        let offload = Offload::open(&options)?;
        let free = offload.memory_left();
        let bytes = match self.memory {
            DeviceMemory::Bytes(bytes) => bytes.min(free),
            DeviceMemory::Share(share) => free / 100 * share,
        };
        let accelerator = Accelerator::new(offload.into(), bytes, self.least);
        match self_test(&accelerator, kernel) {
            Ok(()) => Ok(accelerator),
            Err(reason) => Err(OpeningError::Distrusted {
                device: accelerator.name(),
                reason,
            }),
        }
    }
}
