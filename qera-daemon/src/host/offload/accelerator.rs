//! The CUDA device of a run, and the room that solves have on it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use qera_gpu::Offload;

use crate::host::offload::placement::{DeviceShares, Least};
use crate::host::offload::worked::Worked;

/// A CUDA device.
#[derive(Debug)]
pub(crate) struct Accelerator {
    /// Where it is reached.
    pub(crate) offload: Arc<Offload>,
    /// Its memory.
    pub(crate) shares: DeviceShares,
    /// What is large enough for it.
    pub(crate) least: Least,
    /// What no solve holds of its share.
    left: Mutex<u64>,
    freed: Condvar,
    worked: Mutex<Worked>,
}

/// Room for one solve, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reserved<'a> {
    accelerator: &'a Accelerator,
    bytes: u64,
}

impl Accelerator {
    /// One of whose memory so many bytes are used.
    pub(crate) fn new(offload: Arc<Offload>, bytes: u64, least: Least) -> Self {
        let shares = DeviceShares::of(bytes);
        Self {
            offload,
            shares,
            least,
            left: Mutex::new(shares.solving),
            freed: Condvar::new(),
            worked: Mutex::default(),
        }
    }

    /// Waits until so much of the share of solves is free; `None` where that never is. What one
    /// solve needs is asked for at once, so that none waits while it holds some.
    pub(crate) fn reserve(&self, bytes: u64) -> Option<Reserved<'_>> {
        if bytes > self.shares.solving {
            return None;
        }
        let mut left = self.left();
        while *left < bytes {
            left = self
                .freed
                .wait(left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *left -= bytes;
        Some(Reserved {
            accelerator: self,
            bytes,
        })
    }

    fn left(&self) -> MutexGuard<'_, u64> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was computed there, to be read or written.
    pub(crate) fn worked(&self) -> MutexGuard<'_, Worked> {
        self.worked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device and the libraries that compute on it, for the log and the manifest.
    pub(crate) fn name(&self) -> String {
        self.offload.device().to_string()
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        *self.accelerator.left() += self.bytes;
        self.accelerator.freed.notify_all();
    }
}
