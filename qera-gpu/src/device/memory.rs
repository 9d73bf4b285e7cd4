//! Device memory and page-locked host memory, each owned by one value.

use crate::device::call::Status;
use crate::device::context::Context;
use crate::error::DeviceError;
use core::ffi::c_void;
use core::marker::PhantomData;
use cudarc::driver::sys;
use std::sync::Arc;

/// Numbers that any bytes are.
pub(crate) trait Plain: Copy + Send + Sync + 'static {}
impl Plain for u8 {}
impl Plain for f32 {}
impl Plain for f64 {}

/// Memory for `len` numbers on the device; its content is what was last copied or computed there.
#[derive(Debug)]
pub(crate) struct DeviceBuffer<T: Plain> {
    context: Arc<Context>,
    address: sys::CUdeviceptr,
    len: usize,
    numbers: PhantomData<T>,
}

impl<T: Plain> DeviceBuffer<T> {
    /// Not written yet.
    pub(crate) fn new(context: &Arc<Context>, len: usize) -> Result<Self, DeviceError> {
        // The driver refuses to allocate nothing.
        let bytes = len.max(1).saturating_mul(size_of::<T>());
        context.take(bytes as u64)?;
        let mut address = 0;
        let allocated = context.call("cuMemAlloc", || {
            // SAFETY: `address` outlives the call.
            Status::Driver(unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes) })
        });
        if let Err(error) = allocated {
            let left = context.left();
            context.put_back(bytes as u64);
            return Err(match error {
                DeviceError::OutOfMemory { .. } => DeviceError::OutOfMemory {
                    asked: bytes as u64,
                    left,
                },
                other => other,
            });
        }
        Ok(Self {
            context: Arc::clone(context),
            address,
            len,
            numbers: PhantomData,
        })
    }

    /// The span of all numbers.
    pub(crate) const fn whole(&self) -> Span<'_, T> {
        Span {
            address: self.address,
            len: self.len,
            owner: PhantomData,
        }
    }

    fn bytes(&self) -> usize {
        self.len.max(1) * size_of::<T>()
    }
}

impl<T: Plain> Drop for DeviceBuffer<T> {
    fn drop(&mut self) {
        self.context.settle();
        self.context.release(|| {
            // SAFETY: allocated once in `new`, freed once here, after all work that could use it.
            let _ = unsafe { sys::cuMemFree_v2(self.address) };
        });
        self.context.put_back(self.bytes() as u64);
    }
}

/// A part of a buffer on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span<'a, T: Plain> {
    address: sys::CUdeviceptr,
    pub(crate) len: usize,
    owner: PhantomData<&'a DeviceBuffer<T>>,
}

impl<'a, T: Plain> Span<'a, T> {
    /// Some of the numbers.
    pub(crate) fn part(&self, first: usize, len: usize) -> Result<Self, DeviceError> {
        if first.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(DeviceError::Length {
                what: "a part of device memory",
                expected: first.saturating_add(len),
                found: self.len,
            });
        }
        Ok(Self {
            address: self.address + (first * size_of::<T>()) as u64,
            len,
            owner: PhantomData,
        })
    }

    /// The same memory as bytes.
    pub(crate) const fn bytes(&self) -> Span<'a, u8> {
        Span {
            address: self.address,
            len: self.len * size_of::<T>(),
            owner: PhantomData,
        }
    }

    /// The address on the device at which it begins.
    pub(crate) const fn address(&self) -> sys::CUdeviceptr {
        self.address
    }

    /// The same address, for libraries that ask for a pointer.
    pub(crate) const fn pointer(&self) -> *mut c_void {
        self.address as *mut c_void
    }
}

impl<'a> Span<'a, u8> {
    /// The same memory as f32 numbers, where it lies as they do.
    pub(crate) fn floats(&self) -> Result<Span<'a, f32>, DeviceError> {
        if !self.address.is_multiple_of(4) || !self.len.is_multiple_of(4) {
            return Err(DeviceError::Unsupported("f32 numbers at an odd address"));
        }
        Ok(Span {
            address: self.address,
            len: self.len / 4,
            owner: PhantomData,
        })
    }
}

/// Page-locked bytes of the host, which the device reads while the host goes on.
#[derive(Debug)]
pub(crate) struct PinnedBuffer {
    context: Arc<Context>,
    start: *mut u8,
    len: usize,
}

// SAFETY: it owns its memory, like a Vec.
unsafe impl Send for PinnedBuffer {}

impl PinnedBuffer {
    /// Zeroed.
    pub(crate) fn new(context: &Arc<Context>, len: usize) -> Result<Self, DeviceError> {
        let mut start = core::ptr::null_mut();
        context.call("cuMemHostAlloc", || {
            // SAFETY: `start` outlives the call.
            Status::Driver(unsafe { sys::cuMemHostAlloc(&raw mut start, len.max(1), 0) })
        })?;
        let start = start.cast::<u8>();
        // SAFETY: `len` bytes were just allocated there, and nobody else knows of them.
        unsafe { core::ptr::write_bytes(start, 0, len) };
        Ok(Self {
            context: Arc::clone(context),
            start,
            len,
        })
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The bytes, for a caller that knows that the device no longer reads them.
    pub(crate) const fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `len` bytes, initialised in `new`, borrowed as `self` is.
        unsafe { core::slice::from_raw_parts_mut(self.start, self.len) }
    }

    /// The address at which the numbers lie.
    pub(crate) const fn pointer(&self) -> *const c_void {
        self.start.cast_const().cast()
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        self.context.settle();
        self.context.release(|| {
            // SAFETY: allocated once in `new`, freed once here, after all work that could read it.
            let _ = unsafe { sys::cuMemFreeHost(self.start.cast()) };
        });
    }
}
