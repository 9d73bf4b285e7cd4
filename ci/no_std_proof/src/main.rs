//! Proof that qera-core needs no std, no heap and no start-up code: this program has none of them,
//! links, calls every public routine of qera-core, and ends with status 0 only if each result is
//! right. Status n > 0: check number n of [`CHECKS`] failed; 101: panic.
//!
//! Every routine is called by its full path (`Moments::merge(&mut a, &b)`), so that
//! `tests/tests/no_std_coverage.rs` can compare the calls with the public functions of qera-core
//! and name the one that is missing here. What is checked in depth is checked by the ordinary
//! tests; here each routine shows that it runs.
#![no_std]
#![no_main]

mod device;
mod golden;
mod linalg;
mod quantize;
mod reconstruct;
mod rounding;
mod rows;
mod runtime;
mod sketch;
mod statistics;

/// What is checked, in the order of the data's way.
const CHECKS: [fn() -> bool; 23] = [
    rows::dtypes,
    rows::decoding,
    rows::checked_rows,
    rows::packed_storage,
    rows::pseudo_random_sequence,
    statistics::autocorrelation,
    statistics::means,
    statistics::batch_maxima,
    statistics::moments,
    statistics::block_means,
    quantize::numbers,
    quantize::packed_form,
    quantize::levels,
    quantize::free_scales,
    quantize::any_grid,
    linalg::decompositions,
    linalg::top_eigenvectors,
    rounding::metrics,
    rounding::roundings,
    reconstruct::methods,
    reconstruct::whitened_route,
    sketch::output_error_sketch,
    device::in_f32,
];

/// Runs the checks; 0, or the number of the first that fails.
fn run() -> i32 {
    for (number, check) in (1..).zip(CHECKS) {
        if !check() {
            return number;
        }
    }
    0
}

/// Says whether two numbers agree to a relative (below 1: absolute) tolerance.
fn close(found: f64, expected: f64, tolerance: f64) -> bool {
    let scale = if expected.abs() > 1.0 {
        expected.abs()
    } else {
        1.0
    };
    (found - expected).abs() <= tolerance * scale
}

/// [`close`] for each pair of two slices of one length.
fn all_close(found: &[f64], expected: &[f64], tolerance: f64) -> bool {
    found.len() == expected.len()
        && found
            .iter()
            .zip(expected)
            .all(|(&f, &e)| close(f, e, tolerance))
}
