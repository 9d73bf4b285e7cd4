//! PTX on the device, and how a function of it is launched.

use crate::device::call::Status;
use crate::device::context::Context;
use crate::device::memory::{Plain, Span};
use crate::device::stream::Stream;
use crate::error::DeviceError;
use core::ffi::{CStr, c_void};
use cudarc::driver::sys;
use std::ffi::CString;
use std::sync::Arc;

/// Threads of a block.
const THREADS: usize = 256;

/// A size as kernels take it.
fn count(size: usize) -> Result<u32, DeviceError> {
    u32::try_from(size).map_err(|_| DeviceError::Unsupported("a matrix of 2^32 rows or columns"))
}

/// Blocks and their threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    across: u32,
    down: u32,
    threads: u32,
}

impl Grid {
    /// A launch with a thread for each of `across` numbers, `down` times.
    pub(crate) fn of(across: usize, down: usize) -> Result<Self, DeviceError> {
        Self::in_blocks(across, down, THREADS)
    }

    /// The same with so many threads a block.
    pub(crate) fn in_blocks(
        across: usize,
        down: usize,
        threads: usize,
    ) -> Result<Self, DeviceError> {
        /// The most blocks in y that every device allows.
        const DOWN_MAX: u32 = 65_535;
        let down = count(down)?;
        if down > DOWN_MAX {
            return Err(DeviceError::Unsupported("a launch of 65,536 rows"));
        }
        Ok(Self {
            across: count(across.div_ceil(threads))?,
            down,
            threads: count(threads)?,
        })
    }
}

/// An argument of a launch: its bytes, in the place that the kernel reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Argument(u64);

impl Argument {
    /// An address, or an integer of 64 bits.
    pub(crate) const fn long(number: u64) -> Self {
        Self(number)
    }

    /// An unsigned integer of 32 bits.
    pub(crate) fn count(size: usize) -> Result<Self, DeviceError> {
        // The kernel reads the first four bytes.
        let mut place = [0; 8];
        place[..4].copy_from_slice(&count(size)?.to_ne_bytes());
        Ok(Self(u64::from_ne_bytes(place)))
    }

    pub(crate) const fn real(number: f64) -> Self {
        Self(number.to_bits())
    }
}

impl<T: Plain> From<Span<'_, T>> for Argument {
    fn from(memory: Span<'_, T>) -> Self {
        Self(memory.address())
    }
}

/// A piece of PTX on the device.
#[derive(Debug)]
pub(crate) struct Module {
    context: Arc<Context>,
    handle: sys::CUmodule,
}

// SAFETY: the driver lets any thread use a module.
unsafe impl Send for Module {}
// SAFETY: as above; nothing is changed through it.
unsafe impl Sync for Module {}

impl Module {
    pub(crate) fn load(context: &Arc<Context>, ptx: &str) -> Result<Arc<Self>, DeviceError> {
        let image = CString::new(ptx).map_err(|_| DeviceError::Loader {
            message: "PTX with a zero byte".to_owned(),
        })?;
        let mut handle = core::ptr::null_mut();
        context.call("cuModuleLoadData", || {
            let image = image.as_ptr().cast();
            // SAFETY: the text ends with a zero byte; it and `handle` outlive the call.
            Status::Driver(unsafe { sys::cuModuleLoadData(&raw mut handle, image) })
        })?;
        Ok(Arc::new(Self {
            context: Arc::clone(context),
            handle,
        }))
    }

    pub(crate) fn kernel(self: &Arc<Self>, name: &CStr) -> Result<Kernel, DeviceError> {
        let mut handle = core::ptr::null_mut();
        self.context.call("cuModuleGetFunction", || {
            // SAFETY: the module lives; name and `handle` outlive the call.
            let code =
                unsafe { sys::cuModuleGetFunction(&raw mut handle, self.handle, name.as_ptr()) };
            Status::Driver(code)
        })?;
        Ok(Kernel {
            handle,
            module: Arc::clone(self),
        })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        self.context.settle();
        self.context.release(|| {
            // SAFETY: loaded once, unloaded once here, when no kernel of it is left.
            let _ = unsafe { sys::cuModuleUnload(self.handle) };
        });
    }
}

/// A function of a module.
#[derive(Debug)]
pub(crate) struct Kernel {
    handle: sys::CUfunction,
    module: Arc<Module>,
}

// SAFETY: the driver lets any thread launch a function; it lives as long as its module.
unsafe impl Send for Kernel {}
// SAFETY: as above; nothing is changed through it.
unsafe impl Sync for Kernel {}

impl Kernel {
    /// Launches the kernel with arguments that the caller has checked against the memory they point
    /// to.
    pub(crate) fn launch(
        &self,
        stream: &Stream,
        grid: Grid,
        arguments: &[Argument],
    ) -> Result<(), DeviceError> {
        if grid.across == 0 || grid.down == 0 {
            return Ok(());
        }
        let mut places: Vec<*mut c_void> = arguments
            .iter()
            .map(|argument| core::ptr::from_ref(&argument.0).cast_mut().cast())
            .collect();
        self.module.context.call("cuLaunchKernel", || {
            // SAFETY: the driver reads as many arguments as the kernel has, and these are they, in
            // order and type; their places outlive the call.
            let code = unsafe {
                sys::cuLaunchKernel(
                    self.handle,
                    grid.across,
                    grid.down,
                    1,
                    grid.threads,
                    1,
                    1,
                    0,
                    stream.handle(),
                    places.as_mut_ptr(),
                    core::ptr::null_mut(),
                )
            };
            Status::Driver(code)
        })
    }
}
