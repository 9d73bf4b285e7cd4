//! The products of a solve, one by one: on the device with everything uploaded, on the host with
//! its kernel.

use faer::Mat;
use qera_core::packed::packed_len;
use qera_daemon::{ColumnMajor, Scratch, trace_products};
use qera_gpu::{DeviceError, DeviceOperand, DeviceR};

use crate::inputs::{distance, floats, least_of_three, timed};
use crate::sides::{CheckFailure, Sides};

/// Vectors of a block.
const VECTORS: usize = 48;

/// With an operand, square, and with R.
pub(crate) fn of_size(sides: Sides<'_>, m: usize) -> Result<Vec<serde_json::Value>, CheckFailure> {
    let error = floats(2, m * m);
    Ok(vec![
        operand(sides, &error, m)?,
        second_moment(sides, &error, m)?,
    ])
}

/// X^T B, and Y^T B^T from the same upload.
fn operand(
    Sides { offload, compute }: Sides<'_>,
    values: &[f32],
    m: usize,
) -> Result<serde_json::Value, CheckFailure> {
    let (operand, upload_s) = timed(|| DeviceOperand::new(offload, values, m));
    let operand = operand?;
    let x: Vec<f64> = floats(3, VECTORS * m)
        .iter()
        .map(|x| f64::from(*x))
        .collect();
    let mut there = vec![0.0; VECTORS * m];
    let device_s = least_of_three(|| operand.times(&x, VECTORS, &mut there))?;
    let mut transposed = vec![0.0; VECTORS * m];
    let transposed_s = least_of_three(|| operand.transposed_times(&x, VECTORS, &mut transposed))?;
    let mut exact = vec![0.0; VECTORS * m];
    let device_f64_s = least_of_three(|| operand.times_f64(&x, VECTORS, &mut exact))?;
    let host = compute.operand(ColumnMajor::new(values, m));
    let columns = Mat::from_fn(VECTORS, m, |i, j| x[i + j * VECTORS]);
    let mut here = Mat::zeros(0, 0);
    let host_s = least_of_three(|| {
        here = host.times(columns.as_ref());
        Ok::<(), DeviceError>(())
    })?;
    let here: Vec<f64> = here
        .col_iter()
        .flat_map(|column| column.iter().copied())
        .collect();
    Ok(serde_json::json!({
        "work": "vectors times an operand",
        "m": m,
        "vectors": VECTORS,
        "upload_s": upload_s,
        "device_s": device_s,
        "device_transposed_s": transposed_s,
        "device_f64_s": device_f64_s,
        "host_s": host_s,
        "device_error": distance(&there, &exact),
        "host_error": distance(&here, &exact),
    }))
}

/// R in f64, and tr(R P P^T).
fn second_moment(
    Sides { offload, compute }: Sides<'_>,
    p: &[f32],
    m: usize,
) -> Result<serde_json::Value, CheckFailure> {
    // Any symmetric matrix with a dominant diagonal will do.
    let mut packed: Vec<f64> = floats(4, packed_len(m))
        .iter()
        .map(|x| f64::from(*x))
        .collect();
    for i in 0..m {
        packed[qera_core::packed::packed_offset(m, i)] = m as f64;
    }
    let (r, upload_s) = timed(|| DeviceR::new(offload, &packed, m));
    let r = r?;
    let (scaled, scaling_s) = timed(|| r.scaled(2.0));
    drop(scaled?);
    let x: Vec<f64> = floats(5, VECTORS * m)
        .iter()
        .map(|x| f64::from(*x))
        .collect();
    let mut out = vec![0.0; VECTORS * m];
    let times_f64_s = least_of_three(|| r.times(&x, VECTORS, &mut out))?;
    let mut trace = 0.0;
    let trace_s = least_of_three(|| {
        trace = r.trace_with(p)?;
        Ok::<(), DeviceError>(())
    })?;
    let mut scratch = Scratch::default();
    let host_trace = || trace_products(compute, ColumnMajor::new(p, m), &packed, &mut scratch);
    let (here, host_trace_s) = timed(host_trace);
    Ok(serde_json::json!({
        "work": "R",
        "m": m,
        "vectors": VECTORS,
        "upload_s": upload_s,
        "to_f32_s": scaling_s,
        "times_f64_s": times_f64_s,
        "trace_s": trace_s,
        "host_trace_s": host_trace_s,
        "trace_difference": (trace / here - 1.0).abs(),
    }))
}
