//! From "use a device" to one that is trusted, or to the reason why there is none.

use qera_gpu::{DeviceMemory, Offload, OffloadOptions, Reason};

use crate::host::kernels::Kernel;
use crate::host::offload::accelerator::Accelerator;
use crate::host::offload::placement::Least;
use crate::host::offload::self_test::{Distrust, needed_bytes, self_test};

/// Why no device is used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpeningError {
    /// It cannot be reached.
    #[error("{0}")]
    Unavailable(#[from] Reason),
    /// One of several that are tried.
    #[error("cuda:{number}: {reason}")]
    Tried {
        /// Its number.
        number: usize,
        /// Why it is not used.
        reason: Box<Self>,
    },
    /// It can, and does not compute what the host does.
    #[error("{device}: {reason}")]
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

impl AskedDevice {
    /// Opens it, and compares what it computes with what the host does.
    ///
    /// # Errors
    /// [`OpeningError`].
    pub(crate) fn open(&self, kernel: Kernel) -> Result<Accelerator, OpeningError> {
        let options = OffloadOptions {
            ordinal: self.ordinal,
            memory: self.memory,
            needed_bytes: needed_bytes(),
        };
        let offload = Offload::open(&options)?;
        let bytes = offload.memory_left();
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
