//! Streams, in which work is done in order, and events, by which one waits for another.

use crate::device::call::Status;
use crate::device::context::Context;
use crate::device::memory::{Plain, Span};
use crate::error::{DeviceError, check_length};
use cudarc::driver::sys;
use std::sync::Arc;

/// Work in order. Nothing waits for it unless told to.
#[derive(Debug)]
pub(crate) struct Stream {
    context: Arc<Context>,
    handle: sys::CUstream,
}

// SAFETY: the driver lets any thread use a stream.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        let mut handle = core::ptr::null_mut();
        context.call("cuStreamCreate", || {
            let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
            // SAFETY: `handle` outlives the call.
            Status::Driver(unsafe { sys::cuStreamCreate(&raw mut handle, flags) })
        })?;
        Ok(Self {
            context: Arc::clone(context),
            handle,
        })
    }

    pub(crate) const fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(crate) const fn handle(&self) -> sys::CUstream {
        self.handle
    }

    /// Waits for all of its work; errors of that work come out here.
    pub(crate) fn wait(&self) -> Result<(), DeviceError> {
        self.context.wait("cuStreamSynchronize", || {
            // SAFETY: the stream lives as long as `self`.
            Status::Driver(unsafe { sys::cuStreamSynchronize(self.handle) })
        })
    }

    /// Makes all later work of this stream wait for the event.
    pub(crate) fn follow(&self, event: &Event) -> Result<(), DeviceError> {
        self.context.call("cuStreamWaitEvent", || {
            // SAFETY: stream and event live as long as their owners.
            Status::Driver(unsafe { sys::cuStreamWaitEvent(self.handle, event.handle, 0) })
        })
    }

    /// Copies to the device, and waits until the numbers are there.
    pub(crate) fn upload<T: Plain>(&self, to: Span<'_, T>, from: &[T]) -> Result<(), DeviceError> {
        check_length("an upload", from.len(), to.len)?;
        let bytes = size_of_val(from);
        let copied = self.context.call("cuMemcpyHtoDAsync", || {
            let from = from.as_ptr().cast();
            // SAFETY: both sides have as many bytes; the host's are borrowed until the copy is
            // done, for which both ways out of this function wait.
            let code = unsafe { sys::cuMemcpyHtoDAsync_v2(to.address(), from, bytes, self.handle) };
            Status::Driver(code)
        });
        self.finish(copied)
    }

    /// Copies from the device, after what was asked of this stream before, and waits for it.
    pub(crate) fn download<T: Plain>(
        &self,
        from: Span<'_, T>,
        to: &mut [T],
    ) -> Result<(), DeviceError> {
        check_length("a download", to.len(), from.len)?;
        let bytes = size_of_val(to);
        let copied = self.context.call("cuMemcpyDtoHAsync", || {
            let to = to.as_mut_ptr().cast();
            // SAFETY: as in `upload`; any bytes are numbers of a plain type.
            let code = unsafe { sys::cuMemcpyDtoHAsync_v2(to, from.address(), bytes, self.handle) };
            Status::Driver(code)
        });
        self.finish(copied)
    }

    /// Waits where memory of the host is lent, whatever the copy answered: it may have begun.
    fn finish(&self, copied: Result<(), DeviceError>) -> Result<(), DeviceError> {
        let done = copied.and_then(|()| self.wait());
        if done.is_err() {
            self.context.settle();
        }
        done
    }

    /// Fills with zero bytes.
    pub(crate) fn clear<T: Plain>(&self, to: Span<'_, T>) -> Result<(), DeviceError> {
        self.context.call("cuMemsetD8Async", || {
            let bytes = to.len * size_of::<T>();
            // SAFETY: so many bytes belong to the span.
            let code = unsafe { sys::cuMemsetD8Async(to.address(), 0, bytes, self.handle) };
            Status::Driver(code)
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.context.settle();
        self.context.release(|| {
            // SAFETY: created once in `new`, destroyed once here.
            let _ = unsafe { sys::cuStreamDestroy_v2(self.handle) };
        });
    }
}

/// A point in a stream's work.
#[derive(Debug)]
pub(crate) struct Event {
    context: Arc<Context>,
    handle: sys::CUevent,
}

// SAFETY: as for a stream.
unsafe impl Send for Event {}

impl Event {
    /// Stands for nothing yet: whoever waits for it goes on.
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        let mut handle = core::ptr::null_mut();
        context.call("cuEventCreate", || {
            let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
            // SAFETY: `handle` outlives the call.
            Status::Driver(unsafe { sys::cuEventCreate(&raw mut handle, flags) })
        })?;
        Ok(Self {
            context: Arc::clone(context),
            handle,
        })
    }

    /// Stands for all that the stream was asked for until now.
    pub(crate) fn record(&self, stream: &Stream) -> Result<(), DeviceError> {
        self.context.call("cuEventRecord", || {
            // SAFETY: event and stream live as long as their owners.
            Status::Driver(unsafe { sys::cuEventRecord(self.handle, stream.handle) })
        })
    }

    /// Holds the host until that is done.
    pub(crate) fn wait(&self) -> Result<(), DeviceError> {
        self.context.wait("cuEventSynchronize", || {
            // SAFETY: the event lives as long as `self`.
            Status::Driver(unsafe { sys::cuEventSynchronize(self.handle) })
        })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.context.release(|| {
            // SAFETY: created once in `new`, destroyed once here; the driver lets work that waits
            // for it finish first.
            let _ = unsafe { sys::cuEventDestroy_v2(self.handle) };
        });
    }
}
