//! A device's primary context, which every library shares, and what is known of its state.

use crate::device::call::{Status, called, guarded};
use crate::error::DeviceError;
use crate::offload::DeviceMemory;
use core::sync::atomic::{AtomicU64, Ordering};
use cudarc::driver::sys;
use std::sync::OnceLock;

/// A context. It counts the device memory taken through it, and after a call with which it was lost
/// answers every other with the same error, without asking the driver again.
#[derive(Debug)]
pub(crate) struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
    lost: OnceLock<DeviceError>,
    /// Bytes that were free when it was made.
    free: u64,
    /// Bytes that may be taken.
    bound: u64,
    taken: AtomicU64,
}

// SAFETY: a context may be used from any thread: the driver locks what it shares, and every call
// makes the context current on its own thread first.
unsafe impl Send for Context {}
// SAFETY: as above; the other fields are `Sync`.
unsafe impl Sync for Context {}

impl Context {
    /// Of a device that `cuDeviceGet` returned. At most so much is taken, and never all that is
    /// free.
    pub(crate) fn new(device: sys::CUdevice, memory: DeviceMemory) -> Result<Self, DeviceError> {
        let mut handle = core::ptr::null_mut();
        called("cuDevicePrimaryCtxRetain", || {
            // SAFETY: `handle` outlives the call, and the device exists.
            Status::Driver(unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut handle, device) })
        })?;
        // From here on dropped, and so released, on every way out.
        let mut context = Self {
            device,
            handle,
            lost: OnceLock::new(),
            free: 0,
            bound: 0,
            taken: AtomicU64::new(0),
        };
        let free = context.free_bytes()?;
        context.free = free;
        context.bound = memory.of(free);
        Ok(context)
    }

    /// Calls a function of the driver or of a library that works in this context.
    pub(crate) fn call(
        &self,
        name: &'static str,
        foreign: impl FnOnce() -> Status,
    ) -> Result<(), DeviceError> {
        let mut is_doubtful = false;
        let result = self.ask(name, || {
            let status = foreign();
            is_doubtful = status.is_doubtful();
            status
        });
        if is_doubtful {
            // What this says is kept there, and comes out at the next call.
            let _ = self.wait("cuCtxSynchronize", || {
                // SAFETY: the call takes no arguments.
                Status::Driver(unsafe { sys::cuCtxSynchronize() })
            });
        }
        result.inspect_err(|error| {
            if error.is_final() {
                self.lose(error);
            }
        })
    }

    /// Calls a function that waits for work. What fails in that may be anybody's, so that nothing
    /// of this context can be trusted afterwards.
    pub(crate) fn wait(
        &self,
        name: &'static str,
        foreign: impl FnOnce() -> Status,
    ) -> Result<(), DeviceError> {
        self.ask(name, foreign).map_err(|error| {
            let error = error.of_all();
            self.lose(&error);
            error
        })
    }

    fn ask(&self, name: &'static str, foreign: impl FnOnce() -> Status) -> Result<(), DeviceError> {
        if let Some(error) = self.lost.get() {
            return Err(error.clone());
        }
        self.bind().and_then(|()| called(name, foreign))
    }

    /// Another thread may have been first; either error is true.
    fn lose(&self, error: &DeviceError) {
        let _ = self.lost.set(error.clone());
    }

    /// Calls a function that gives something back, whatever became of the device: there is nobody
    /// to tell of an error, and what a lost device held is gone with it.
    pub(crate) fn release(&self, foreign: impl FnOnce()) {
        let _ = self.bind();
        let _ = guarded(foreign);
    }

    /// Waits for all that was asked of the device, or until it is known to be lost: nothing touches
    /// memory any more that is about to be given back.
    pub(crate) fn settle(&self) {
        self.release(|| {
            // SAFETY: the call takes no arguments. An error of earlier work is reported to whoever
            // asks for that work's result.
            let _ = unsafe { sys::cuCtxSynchronize() };
        });
    }

    fn bind(&self) -> Result<(), DeviceError> {
        called("cuCtxSetCurrent", || {
            // SAFETY: the context is retained until `self` is dropped.
            Status::Driver(unsafe { sys::cuCtxSetCurrent(self.handle) })
        })
    }

    /// What the driver says is free, whoever uses the rest.
    fn free_bytes(&self) -> Result<u64, DeviceError> {
        let (mut free, mut total) = (0, 0);
        self.call("cuMemGetInfo", || {
            // SAFETY: both numbers outlive the call.
            Status::Driver(unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) })
        })?;
        Ok(free as u64)
    }

    /// With what it was lost.
    pub(crate) fn lost(&self) -> Option<&DeviceError> {
        self.lost.get()
    }

    /// Bytes that were free when it was made.
    pub(crate) const fn free(&self) -> u64 {
        self.free
    }

    /// Bytes that may still be taken.
    pub(crate) fn left(&self) -> u64 {
        self.bound
            .saturating_sub(self.taken.load(Ordering::Relaxed))
    }

    /// Takes so many bytes of the bound, or none.
    pub(crate) fn take(&self, asked: u64) -> Result<(), DeviceError> {
        let within = |taken: u64| taken.checked_add(asked).filter(|sum| *sum <= self.bound);
        let taken = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, within);
        taken.map(|_| ()).map_err(|taken| DeviceError::OutOfMemory {
            asked,
            left: self.bound.saturating_sub(taken),
        })
    }

    /// Gives them back.
    pub(crate) fn put_back(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let _ = guarded(|| {
            // SAFETY: retained once in `new`, released once here; all that lives in it holds an Arc
            // of this context and so is gone.
            unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) }
        });
    }
}
