//! A layer from R and E to A and B: on the device and on the host, cold, rank 32.

use faer::{Mat, MatRef};
use qera_core::packed::packed_offset;
use qera_daemon::{LayerProblem, LowRankTerm};

use crate::inputs::{floats, timed};
use crate::sides::{CheckFailure, Sides};

const RANK: usize = 32;
/// Rows that R is the mean of, for each channel.
const ROWS: usize = 2;

/// Square, and with 4096 also 11008 x 4096.
pub(crate) fn of_size(sides: Sides<'_>, m: usize) -> Result<Vec<serde_json::Value>, CheckFailure> {
    let widths = if m == 4096 { &[m, 11008][..] } else { &[m] };
    widths.iter().map(|&width| one(sides, width, m)).collect()
}

fn one(
    Sides { offload, compute }: Sides<'_>,
    m: usize,
    n: usize,
) -> Result<serde_json::Value, CheckFailure> {
    let (packed, error) = (second_moment(m), floats(8, m * n));
    let problem = LayerProblem {
        autocorrelation: &packed,
        error: &error,
        in_features: m,
        rank: RANK,
    };
    // The first has buffers made and code loaded.
    problem.solve_on(offload, compute, None)?;
    let (there, device_s) = timed(|| problem.solve_on(offload, compute, None));
    let (here, host_s) = timed(|| problem.solve(compute, None));
    let (there, here) = (there?, here?);
    let captured = |term: &LowRankTerm| term.captured.iter().sum::<f64>();
    Ok(serde_json::json!({
        "m": m,
        "n": n,
        "rank": RANK,
        "device_s": device_s,
        "host_s": host_s,
        // What A B takes off tr(R E E^T).
        "captured_difference": (captured(&there) / captured(&here) - 1.0).abs(),
        "subspace_difference": outside(&there.b_transposed, &here.b_transposed),
    }))
}

/// R of channels that decay and are mixed with their neighbours, as a mean over a few rows: packed.
fn second_moment(m: usize) -> Vec<f64> {
    let values = floats(7, ROWS * m);
    let mut packed = vec![0.0; packed_offset(m, m)];
    for i in 0..m {
        let own = 1.0 + 100.0 / (1.0 + i as f64);
        let row = &mut packed[packed_offset(m, i)..packed_offset(m, i + 1)];
        for (j, to) in row.iter_mut().enumerate() {
            let rows = values.chunks_exact(m);
            let mixed = rows
                .map(|x| f64::from(x[i]) * f64::from(x[i + j]))
                .sum::<f64>();
            *to = mixed / ROWS as f64 + if j == 0 { own } else { 0.0 };
        }
    }
    packed
}

/// How much of the columns of one orthonormal basis lies outside of the other: the root of the sum
/// of the squares.
fn outside(one: &Mat<f64>, other: &Mat<f64>) -> f64 {
    let (one, other): (MatRef<'_, f64>, MatRef<'_, f64>) = (one.as_ref(), other.as_ref());
    let along = other.transpose() * one;
    (one.ncols() as f64 - along.squared_norm_l2())
        .max(0.0)
        .sqrt()
}
