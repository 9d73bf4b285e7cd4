//! Rows on their way to the device: while one piece is computed with, the next is copied.
//!
//! Two page-locked buffers of the host, each with a twin on the device. The host writes into one as
//! soon as the device has read what it held before; the copy goes into the twin as soon as the
//! work on what that held before is done. Neither holds up the work on the other.

use crate::device::call::Status;
use crate::device::context::Context;
use crate::device::memory::{DeviceBuffer, PinnedBuffer, Span};
use crate::device::stream::{Event, Stream};
use crate::error::DeviceError;
use cudarc::driver::sys;
use std::sync::Arc;

/// Two slots through which rows are copied to the device in turn.
#[derive(Debug)]
pub(crate) struct Staging {
    copies: Stream,
    slots: [Slot; 2],
    /// The slot that was filled last.
    last: usize,
}

#[derive(Debug)]
struct Slot {
    pinned: PinnedBuffer,
    twin: DeviceBuffer<u8>,
    /// The device has read the page-locked bytes.
    read: Event,
    /// The work with the twin is done.
    used: Event,
}

impl Staging {
    /// Makes both slots without any memory yet.
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        Ok(Self {
            copies: Stream::new(context)?,
            slots: [Slot::new(context, 0)?, Slot::new(context, 0)?],
            last: 0,
        })
    }

    /// Sends parts, one behind the other, to the device, and asks `work`'s stream to follow.
    /// Returns when the parts were copied from where they lie; `ask` asks for the work on them.
    pub(crate) fn send(
        &mut self,
        work: &Stream,
        parts: &[&[u8]],
        ask: impl FnOnce(Span<'_, u8>) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        self.last = 1 - self.last;
        let slot = &mut self.slots[self.last];
        let bytes = parts.iter().map(|part| part.len()).sum();
        if slot.pinned.len() < bytes {
            // First freed, then allocated: there need not be room for both.
            *slot = Slot::new(work.context(), 0)?;
            *slot = Slot::new(work.context(), bytes)?;
        }
        slot.read.wait()?;
        let mut rest = slot.pinned.bytes_mut();
        for part in parts {
            let (own, after) = rest.split_at_mut(part.len());
            own.copy_from_slice(part);
            rest = after;
        }
        self.copies.follow(&slot.used)?;
        let twin = slot.twin.whole().part(0, bytes)?;
        let copied = work.context().call("cuMemcpyHtoDAsync", || {
            let (from, stream) = (slot.pinned.pointer(), self.copies.handle());
            // SAFETY: both sides have room for `bytes`; the host's are not written again before
            // `read`, which is recorded next, nor freed before all work is done.
            let code = unsafe { sys::cuMemcpyHtoDAsync_v2(twin.address(), from, bytes, stream) };
            Status::Driver(code)
        });
        copied.and_then(|()| slot.read.record(&self.copies))?;
        work.follow(&slot.read)?;
        let asked = ask(twin);
        // Also of work that was asked for in part: the next copy is not to run into it.
        slot.used.record(work)?;
        asked
    }
}

impl Slot {
    fn new(context: &Arc<Context>, bytes: usize) -> Result<Self, DeviceError> {
        Ok(Self {
            pinned: PinnedBuffer::new(context, bytes)?,
            twin: DeviceBuffer::new(context, bytes)?,
            read: Event::new(context)?,
            used: Event::new(context)?,
        })
    }
}
