//! What is refused changes nothing.

use nalgebra::DMatrixViewMut;
use qera_core::reconstruct::{SketchedError, reconstruct_sketched};
use qera_core::rows::{Rows, ShapeError};
use qera_core::statistics::{
    ErrorSketch, SketchError, SketchRoom, SketchTotals, StatisticError, error_sketch_workspace_len,
};
use qera_tests::spectra::Spectrum;

use super::Stream;

#[test]
fn states_that_no_stream_leaves_are_not_continued() {
    let totals = SketchTotals {
        weight: 1.0,
        trace: 1.0,
        shrunk: 0.0,
    };
    let of = |rows: &mut [f32], width, totals| ErrorSketch::resume(rows, width, totals).err();
    for (length, width) in [(0, 3), (4, 3), (3, 0)] {
        let refused = of(&mut vec![0.0; length], width, totals);
        assert!(matches!(refused, Some(StatisticError::Length { .. })));
    }
    let broken = of(&mut [0.0, f32::NAN], 2, totals);
    assert!(matches!(
        broken,
        Some(StatisticError::Value { index: 1, .. })
    ));
    let negative = SketchTotals {
        shrunk: -1.0,
        ..totals
    };
    let refused = of(&mut [0.0; 2], 2, negative);
    assert!(matches!(refused, Some(StatisticError::Value { index: 1, value }) if value < 0.0));
    let unweighed = SketchTotals {
        weight: f64::NAN,
        ..totals
    };
    let refused = of(&mut [0.0; 2], 2, unweighed);
    assert!(matches!(refused, Some(StatisticError::Weight { .. })));
}

#[test]
fn broken_blocks_and_short_rooms_leave_no_trace() {
    let stream = Stream::new(40, 6, 9, 6, Spectrum::Flat);
    let mut sketched = stream.sketch(4, 8, 0, 24);
    let before = sketched.clone();
    let values = stream.values(24, 16);
    let rows = Rows::new(&values, 6).unwrap();
    let full = error_sketch_workspace_len(3, 8);
    let (mut errors, mut columns, mut workspace) =
        (vec![0.0; 8 * 9], vec![0.0; 6], vec![0.0; full]);
    for (errors_len, columns_len, workspace_len) in
        [(8, 6, full), (8 * 9, 5, full), (8 * 9, 6, full - 1)]
    {
        let mut room = SketchRoom {
            errors: &mut errors[..errors_len],
            columns: &mut columns[..columns_len],
            workspace: &mut workspace[..workspace_len],
        };
        let mut sketch = ErrorSketch::resume(&mut sketched.rows, 9, before.totals).unwrap();
        let refused = sketch.update(&rows, &mut stream.columns(), &mut room);
        assert!(matches!(refused, Err(SketchError::Room { .. })));
        assert_eq!(sketch.totals(), before.totals);
        assert_eq!(sketched.rows, before.rows);
    }
    // E breaks in the second block: the first one counts.
    let mut calls = 0;
    let mut breaking = |first: usize, to: &mut [f32]| {
        calls += 1;
        stream.columns()(first, to);
        if calls == 12 {
            to.fill(f32::INFINITY);
        }
    };
    let mut room = SketchRoom {
        errors: &mut errors,
        columns: &mut columns,
        workspace: &mut workspace,
    };
    let mut sketch = ErrorSketch::resume(&mut sketched.rows, 9, before.totals).unwrap();
    let refused = sketch.update(&rows, &mut breaking, &mut room);
    let at_third = |error: &ShapeError| matches!(error, ShapeError::Value { column: 2, .. });
    assert!(matches!(&refused, Err(SketchError::Errors(error)) if at_third(error)));
    assert!((sketch.totals().weight - 32.0).abs() < 1e-12);
    assert_eq!(sketched.rows, stream.sketch(4, 8, 0, 32).rows);
}

#[test]
fn another_width_is_refused() {
    let (mut rows, mut others) = ([0.0; 6], [0.0; 4]);
    let mut sketch = ErrorSketch::new(&mut rows, 3).unwrap();
    let wide = SketchError::Width {
        expected: 3,
        found: 2,
    };
    let errors = Rows::new(&[1.0, 2.0], 2).unwrap();
    assert_eq!(sketch.take_errors(&errors, &mut []), Err(wide));
    let totals = SketchTotals {
        weight: 1.0,
        ..SketchTotals::default()
    };
    let other = ErrorSketch::resume(&mut others, 2, totals).unwrap();
    assert_eq!(sketch.merge(&other, &mut []), Err(wide));
    let (mut a, mut b) = ([0.0; 4], [0.0; 4]);
    let mut ask = |_: usize, _: &mut [f32]| {};
    let mut solve = |columns: &mut [f32]| {
        let a = DMatrixViewMut::from_slice(&mut a, 2, 2);
        reconstruct_sketched(&sketch, &mut ask, columns, a, {
            DMatrixViewMut::from_slice(&mut b, 2, 2)
        })
    };
    assert!(matches!(
        solve(&mut [0.0; 1]),
        Err(SketchedError::Columns { needed: 2, lent: 1 })
    ));
    assert!(matches!(solve(&mut [0.0; 2]), Err(SketchedError::Shape(_))));
}
