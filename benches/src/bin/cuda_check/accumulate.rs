//! Rows folded into R: on the device as they come, on the host by its kernel.

use qera_core::dtype::FloatDtype;
use qera_core::packed::{packed_len, packed_offset};
use qera_core::statistics::BlockShare;
use qera_daemon::{PageVec, Scratch, StoredRows, fold_products};
use qera_gpu::{DeviceError, DeviceRows, PIECE_ROWS, PieceShare, Triangle};

use crate::inputs::{bytes, floats, timed};
use crate::sides::{CheckFailure, Sides};

/// Rows of a batch, and batches that are timed.
const BATCH: usize = 2048;
const BATCHES: usize = 32;

/// Every type.
pub(crate) fn of_size(sides: Sides<'_>, m: usize) -> Result<Vec<serde_json::Value>, CheckFailure> {
    let values = floats(1, BATCH * m);
    let types = [FloatDtype::Bf16, FloatDtype::F16, FloatDtype::F32];
    let one = |dtype| one(sides, &bytes(&values, dtype), dtype, m);
    types.into_iter().map(one).collect()
}

fn one(
    sides: Sides<'_>,
    batch: &[u8],
    dtype: FloatDtype,
    m: usize,
) -> Result<serde_json::Value, CheckFailure> {
    let mut triangle = Triangle::new(sides.offload, &vec![0.0; packed_len(m)], m)?;
    let mut found = vec![0.0; packed_len(m)];
    let mut seen = 0;
    let mut fold = |triangle: &mut Triangle| -> Result<(), DeviceError> {
        let rows = DeviceRows {
            bytes: batch,
            dtype,
            in_features: m,
            weights: None,
        };
        let firsts = (seen..seen + BATCH).step_by(PIECE_ROWS);
        let shares: Vec<PieceShare> = firsts.map(share).collect();
        seen += BATCH;
        triangle.fold(rows, &shares)
    };
    // The first has buffers made and code loaded.
    fold(&mut triangle)?;
    triangle.read(&mut found)?;
    let (done, whole) = timed(|| -> Result<(), DeviceError> {
        for _ in 0..BATCHES {
            fold(&mut triangle)?;
        }
        triangle.read(&mut found)
    });
    done?;
    let (done, reading) = timed(|| triangle.read(&mut found));
    done?;
    let device_s = (whole - reading) / BATCHES as f64;

    let mut here = PageVec::zeroed(packed_len(m));
    let (mut scratch, mut before) = (Scratch::default(), 0.0);
    let mut on_host = || {
        let rows = StoredRows::bytes(batch, dtype, m);
        fold_products(sides.compute, rows, &mut here, &mut scratch, |count| {
            let share = BlockShare::new(before, count as f64);
            before += count as f64;
            share
        });
    };
    on_host();
    let ((), host_s) = timed(on_host);
    Ok(serde_json::json!({
        "m": m,
        "rows": BATCH,
        "dtype": dtype.to_string(),
        "device_s": device_s,
        "device_gb_per_s": batch.len() as f64 / device_s / 1e9,
        "read_s": reading,
        "host_s": host_s,
        // The same rows in every batch: both means are of the same rows.
        "entry_difference": entry_difference(&found, &here, m),
    }))
}

/// Of the piece that comes after so many rows.
fn share(before: usize) -> PieceShare {
    let after = (before + PIECE_ROWS) as f64;
    PieceShare {
        rows: PIECE_ROWS,
        kept: before as f64 / after,
        per_sum: 1.0 / after,
    }
}

/// The largest difference of two packed R over sqrt(R_ii R_jj).
fn entry_difference(found: &[f64], expected: &[f64], m: usize) -> f64 {
    let root = |i: usize| expected[packed_offset(m, i)].sqrt();
    let roots: Vec<f64> = (0..m).map(root).collect();
    let mut worst = 0.0_f64;
    for i in 0..m {
        let row = packed_offset(m, i)..packed_offset(m, i + 1);
        for ((x, y), root) in found[row.clone()]
            .iter()
            .zip(&expected[row])
            .zip(&roots[i..])
        {
            worst = worst.max((x - y).abs() / (roots[i] * root));
        }
    }
    worst
}
