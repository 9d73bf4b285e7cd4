//! The golden problem without R: its output errors sketched, whole and in two merged parts.

use crate::golden::{self, ERRORS, M, N, R, SINGULAR, X};
use crate::{all_close, close};
use nalgebra::DMatrixViewMut;
use qera_core::packed::packed_offset;
use qera_core::reconstruct::{
    Shrinkage, SketchedReport, reconstruct_sketched, reconstruct_sketched_shrunk,
    sketched_workspace_len,
};
use qera_core::rows::Rows;
use qera_core::statistics::{ErrorSketch, SketchRoom, error_sketch_workspace_len, output_errors};

/// What errors in f32 leave of the printed digits.
const ROUNDED: f64 = 1e-6;
/// Rows that survive: all three directions.
const KEPT: usize = 3;

/// Columns of E, as a device would decode them.
#[expect(clippy::cast_possible_truncation, reason = "E is of f32 numbers")]
fn columns(first: usize, columns: &mut [f32]) {
    let error = golden::error();
    for (to, from) in columns.iter_mut().zip(&error[first * M..]) {
        *to = *from as f32;
    }
}

pub fn output_error_sketch() -> bool {
    sketch_output_errors().unwrap_or(false)
}

fn sketch_output_errors() -> Option<bool> {
    let (first, second) = X.split_at(2 * M);
    let (first, second) = (Rows::new(first, M).ok()?, Rows::new(second, M).ok()?);
    let (mut state, mut other) = ([0.0; KEPT * N], [0.0; KEPT * N]);
    let (mut errors, mut column) = ([0.0; 2 * N], [0.0; M]);
    let mut workspace = [0.0; error_sketch_workspace_len(KEPT, KEPT)];
    let mut sketch = ErrorSketch::new(&mut state, N).ok()?;
    let mut room = SketchRoom {
        errors: &mut errors,
        columns: &mut column,
        workspace: &mut workspace,
    };
    ErrorSketch::update(&mut sketch, &first, &mut columns, &mut room).ok()?;
    let mut formed = [0.0; 3 * N];
    output_errors(&second, &mut columns, &mut column, &mut formed).ok()?;
    let mut part = ErrorSketch::new(&mut other, N).ok()?;
    let formed = Rows::new(&formed, N).ok()?;
    ErrorSketch::take_errors(&mut part, &formed, &mut workspace).ok()?;
    ErrorSketch::merge(&mut sketch, &part, &mut workspace).ok()?;
    let totals = ErrorSketch::totals(&sketch);
    let mut found = [0.0; KEPT];
    for (to, value) in found.iter_mut().zip(ErrorSketch::eigenvalues(&sketch)) {
        *to = value;
    }
    let optimum = ErrorSketch::optimum(&sketch, 1);
    let mut right = totals.weight == 5.0
        && close(totals.trace, ERRORS[0], ROUNDED)
        && close(optimum.most, ERRORS[1], ROUNDED)
        && close(optimum.least, ERRORS[1], ROUNDED)
        && all_close(&found, &SINGULAR.map(|s| s * s), ROUNDED)
        && ErrorSketch::kept(&sketch) == KEPT
        && ErrorSketch::rows(&sketch).len() == KEPT * N
        && ErrorSketch::out_features(&sketch) == N;
    let mut directions = [0.0; N];
    let directions = DMatrixViewMut::from_slice(&mut directions, 1, N);
    right &= ErrorSketch::finish(&sketch, directions).ok()? == 1;

    let (mut a, mut b) = ([0.0; M], [0.0; N]);
    let report = reconstruct_sketched(
        &sketch,
        &mut columns,
        &mut column,
        DMatrixViewMut::from_slice(&mut a, M, 1),
        DMatrixViewMut::from_slice(&mut b, 1, N),
    );
    right &= is_golden(&report.ok()?);
    let diagonal: [f64; M] = core::array::from_fn(|i| R[packed_offset(M, i)]);
    let mut workspace = [0.0; sketched_workspace_len(M, N, 1)];
    let shrinkage = Shrinkage {
        diagonal: &diagonal,
        share: 1.0,
    };
    let shrunk = reconstruct_sketched_shrunk(
        &sketch,
        shrinkage,
        &mut columns,
        &mut column,
        DMatrixViewMut::from_slice(&mut a, M, 1),
        DMatrixViewMut::from_slice(&mut b, 1, N),
        &mut workspace,
    );
    right &= close(shrunk.ok()?.error_most, ERRORS[2], ROUNDED);
    let resumed = ErrorSketch::resume(&mut state, N, totals).ok()?;
    Some(right && ErrorSketch::totals(&resumed) == totals)
}

/// The best of rank 1 is left.
fn is_golden(report: &SketchedReport) -> bool {
    close(report.error_without, ERRORS[0], ROUNDED)
        && close(report.error_most, ERRORS[1], ROUNDED)
        && close(report.error_least, ERRORS[1], ROUNDED)
        && report.rank_used == 1
}
