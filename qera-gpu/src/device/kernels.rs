//! Our kernels: loaded from the PTX that was made of `kernels/*.cu`, launched with lengths checked.
//!
//! Each is a function of its arguments, element by element or row by row: no barriers, no atomics,
//! so that a result does not depend on the order in which a device runs it.

use crate::device::context::Context;
use crate::device::memory::Span;
use crate::device::module::{Argument, Grid, Kernel, Module};
use crate::device::stream::Stream;
use crate::error::{DeviceError, check_length};
use qera_core::dtype::FloatDtype;
use qera_core::packed::packed_len;
use std::sync::Arc;

/// Threads of a block that sums a row, and so partial sums of a row.
pub(crate) const PARTIAL_SUMS: usize = 64;

/// All kernels, ready for launch.
#[derive(Debug)]
pub(crate) struct Kernels {
    fold_panel: Kernel,
    widen: Kernel,
    unpack_columns: Kernel,
    unpack_scaled: Kernel,
    weigh_bf16: Kernel,
    weigh_f16: Kernel,
    weigh_f32: Kernel,
    trace_panel: Kernel,
    trace_rows: Kernel,
}

/// Rows of a packed triangle, from one on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedPanel<'a> {
    pub(crate) packed: Span<'a, f64>,
    pub(crate) in_features: usize,
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// How a panel of sums changes the mean that it is folded into: R <- kept R + `per_sum` S.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fold {
    pub(crate) kept: f64,
    pub(crate) per_sum: f64,
}

/// Rows and what each is multiplied by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FactoredRows<'a> {
    pub(crate) rows: Span<'a, u8>,
    pub(crate) dtype: FloatDtype,
    pub(crate) factors: Span<'a, f32>,
    pub(crate) in_features: usize,
}

impl Kernels {
    pub(crate) fn load(context: &Arc<Context>) -> Result<Self, DeviceError> {
        let fold = Module::load(context, include_str!("../kernels/fold.ptx"))?;
        let widen = Module::load(context, include_str!("../kernels/widen.ptx"))?;
        let weigh = Module::load(context, include_str!("../kernels/weigh.ptx"))?;
        let trace = Module::load(context, include_str!("../kernels/trace.ptx"))?;
        Ok(Self {
            fold_panel: fold.kernel(c"fold_panel")?,
            widen: widen.kernel(c"widen")?,
            unpack_columns: widen.kernel(c"unpack_columns")?,
            unpack_scaled: widen.kernel(c"unpack_scaled")?,
            weigh_bf16: weigh.kernel(c"weigh_bf16")?,
            weigh_f16: weigh.kernel(c"weigh_f16")?,
            weigh_f32: weigh.kernel(c"weigh_f32")?,
            trace_panel: trace.kernel(c"trace_panel")?,
            trace_rows: trace.kernel(c"trace_rows")?,
        })
    }

    /// Folds a panel of sums (as `Blas::gram` leaves them) into rows of a packed triangle.
    pub(crate) fn fold_panel(
        &self,
        stream: &Stream,
        panel: &PackedPanel<'_>,
        sums: Span<'_, f32>,
        fold: Fold,
    ) -> Result<(), DeviceError> {
        let beside = panel.check(sums.len)?;
        let arguments = [
            panel.packed.into(),
            sums.into(),
            Argument::count(panel.in_features)?,
            Argument::count(panel.first)?,
            Argument::real(fold.kept),
            Argument::real(fold.per_sum),
        ];
        let grid = Grid::of(beside, panel.count)?;
        self.fold_panel.launch(stream, grid, &arguments)
    }

    /// f32 numbers in f64.
    pub(crate) fn widen(
        &self,
        stream: &Stream,
        from: Span<'_, f32>,
        to: Span<'_, f64>,
    ) -> Result<(), DeviceError> {
        check_length("numbers to widen", from.len, to.len)?;
        let arguments = [from.into(), to.into(), Argument::long(to.len as u64)];
        self.widen.launch(stream, Grid::of(to.len, 1)?, &arguments)
    }

    /// Columns of a packed matrix, whole.
    pub(crate) fn unpack_columns(
        &self,
        stream: &Stream,
        panel: &PackedPanel<'_>,
        columns: Span<'_, f64>,
    ) -> Result<(), DeviceError> {
        let grid = panel.check_columns(columns.len)?;
        let arguments = [
            panel.packed.into(),
            columns.into(),
            Argument::count(panel.in_features)?,
            Argument::count(panel.first)?,
        ];
        self.unpack_columns.launch(stream, grid, &arguments)
    }

    /// Unpacks the matrix divided by `scale`, in f32.
    pub(crate) fn unpack_scaled(
        &self,
        stream: &Stream,
        panel: &PackedPanel<'_>,
        columns: Span<'_, f32>,
        scale: f64,
    ) -> Result<(), DeviceError> {
        let grid = panel.check_columns(columns.len)?;
        let arguments = [
            panel.packed.into(),
            columns.into(),
            Argument::count(panel.in_features)?,
            Argument::count(panel.first)?,
            Argument::real(scale),
        ];
        self.unpack_scaled.launch(stream, grid, &arguments)
    }

    /// Rows times their factors, in f32.
    pub(crate) fn weigh(
        &self,
        stream: &Stream,
        rows: &FactoredRows<'_>,
        out: Span<'_, f32>,
    ) -> Result<(), DeviceError> {
        let numbers = rows.factors.len.saturating_mul(rows.in_features);
        let bytes = numbers.saturating_mul(rows.dtype.size_bytes());
        check_length("rows with weights", rows.rows.len, bytes)?;
        check_length("weighed rows", out.len, numbers)?;
        let arguments = [
            rows.rows.into(),
            rows.factors.into(),
            out.into(),
            Argument::count(rows.in_features)?,
        ];
        let kernel = match rows.dtype {
            FloatDtype::Bf16 => &self.weigh_bf16,
            FloatDtype::F16 => &self.weigh_f16,
            FloatDtype::F32 => &self.weigh_f32,
        };
        let grid = Grid::of(rows.in_features, rows.factors.len)?;
        kernel.launch(stream, grid, &arguments)
    }

    /// Adds what each row of the panel has of tr(R S) to its partial sums.
    pub(crate) fn trace_panel(
        &self,
        stream: &Stream,
        panel: &PackedPanel<'_>,
        sums: Span<'_, f64>,
        partial: Span<'_, f64>,
    ) -> Result<(), DeviceError> {
        panel.check(sums.len)?;
        let expected = panel.in_features.saturating_mul(PARTIAL_SUMS);
        check_length("partial sums of a trace", partial.len, expected)?;
        let arguments = [
            panel.packed.into(),
            sums.into(),
            partial.into(),
            Argument::count(panel.in_features)?,
            Argument::count(panel.first)?,
        ];
        // One block a row.
        let grid = Grid::in_blocks(PARTIAL_SUMS, panel.count, PARTIAL_SUMS)?;
        self.trace_panel.launch(stream, grid, &arguments)
    }

    /// Computes what each row adds to a trace.
    pub(crate) fn trace_rows(
        &self,
        stream: &Stream,
        partial: Span<'_, f64>,
        rows: Span<'_, f64>,
    ) -> Result<(), DeviceError> {
        let m = rows.len;
        let expected = m.saturating_mul(PARTIAL_SUMS);
        check_length("partial sums of a trace", partial.len, expected)?;
        let arguments = [
            partial.into(),
            rows.into(),
            Argument::count(m)?,
            Argument::count(PARTIAL_SUMS)?,
        ];
        self.trace_rows.launch(stream, Grid::of(m, 1)?, &arguments)
    }
}

impl PackedPanel<'_> {
    /// Held against its matrix and the sums of its rows; how many numbers its first row has.
    fn check(&self, sums: usize) -> Result<usize, DeviceError> {
        self.check_rows()?;
        let beside = self.in_features - self.first;
        check_length("sums of a panel", sums, beside.saturating_mul(self.count))?;
        Ok(beside)
    }

    /// Held against its matrix and memory for its columns, whole; a launch for each of their
    /// numbers.
    fn check_columns(&self, numbers: usize) -> Result<Grid, DeviceError> {
        self.check_rows()?;
        let expected = self.in_features.saturating_mul(self.count);
        check_length("unpacked columns", numbers, expected)?;
        Grid::of(self.in_features, self.count)
    }

    fn check_rows(&self) -> Result<(), DeviceError> {
        let m = self.in_features;
        check_length("a packed triangle", self.packed.len, packed_len(m))?;
        if self.first.checked_add(self.count).is_none_or(|end| end > m) {
            return Err(DeviceError::Length {
                what: "rows of a panel",
                expected: m,
                found: self.first.saturating_add(self.count),
            });
        }
        Ok(())
    }
}
