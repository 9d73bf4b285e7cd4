//! A stream with the handles and the scratch that work in it: one caller at a time.

use crate::device::blas::{Blas, GramPanel};
use crate::device::context::Context;
use crate::device::kernels::PackedPanel;
use crate::device::libraries::BlasFunctions;
use crate::device::memory::Span;
use crate::device::stream::Stream;
use crate::error::DeviceError;
use crate::scratch::Scratch;
use qera_core::dtype::FloatDtype;
use std::sync::Arc;

/// Channels of a panel of X^T X, whose sums exist at a time.
pub(crate) const PANEL: usize = 512;

/// One of the two lanes of a device: folds do not wait for solves.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) blas: Blas,
    pub(crate) stream: Arc<Stream>,
    /// The sums of a panel.
    sums: Scratch<f32>,
}

/// Rows on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowsThere<'a> {
    pub(crate) bytes: Span<'a, u8>,
    pub(crate) dtype: FloatDtype,
    pub(crate) count: usize,
    pub(crate) in_features: usize,
}

impl Lane {
    pub(crate) fn new(
        context: &Arc<Context>,
        functions: &Arc<BlasFunctions>,
    ) -> Result<Self, DeviceError> {
        let stream = Arc::new(Stream::new(context)?);
        Ok(Self {
            blas: Blas::new(functions, &stream)?,
            stream,
            sums: Scratch::new(),
        })
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        self.stream.context()
    }

    /// The upper triangle of X^T X, panel by panel: `with` is given the panel's place in the packed
    /// triangle and its sums.
    pub(crate) fn gram_panels(
        &mut self,
        packed: Span<'_, f64>,
        rows: RowsThere<'_>,
        with: impl Fn(&Stream, &PackedPanel<'_>, Span<'_, f32>) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let m = rows.in_features;
        let context = Arc::clone(self.context());
        let room = self.sums.of(&context, m.saturating_mul(PANEL.min(m)))?;
        for first in (0..m).step_by(PANEL) {
            let width = PANEL.min(m - first);
            let sums = room.part(0, width * (m - first))?;
            self.blas.gram(&GramPanel {
                rows: rows.bytes,
                dtype: rows.dtype,
                count: rows.count,
                in_features: m,
                first,
                width,
                sums,
            })?;
            let panel = PackedPanel {
                packed,
                in_features: m,
                first,
                count: width,
            };
            with(&self.stream, &panel, sums)?;
        }
        Ok(())
    }
}
