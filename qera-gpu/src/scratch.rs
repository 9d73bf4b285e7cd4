//! Device memory that is used again from call to call, as large as the largest use.

use crate::device::context::Context;
use crate::device::memory::{DeviceBuffer, Plain, Span};
use crate::error::DeviceError;
use std::sync::Arc;

/// Holds nothing until it is asked for some. Its content is whatever its last use left.
#[derive(Debug)]
pub(crate) struct Scratch<T: Plain>(Option<DeviceBuffer<T>>);

impl<T: Plain> Scratch<T> {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// Lends memory for this many numbers.
    pub(crate) fn of(
        &mut self,
        context: &Arc<Context>,
        len: usize,
    ) -> Result<Span<'_, T>, DeviceError> {
        let held = self.0.as_ref().map_or(0, |buffer| buffer.whole().len);
        if self.0.is_none() || held < len {
            // First freed, then allocated: the two need not fit side by side.
            self.0 = None;
        }
        let buffer = match self.0.take() {
            Some(buffer) => buffer,
            None => DeviceBuffer::new(context, len)?,
        };
        self.0.insert(buffer).whole().part(0, len)
    }
}
