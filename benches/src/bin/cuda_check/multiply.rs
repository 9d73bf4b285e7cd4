//! The products of a solve, one by one: on the device with everything uploaded, on the host with
//! its kernel.

use std::sync::Arc;

use faer::Mat;
use qera_core::packed::packed_len;
use qera_daemon::{ColumnMajor, Compute, Scratch, trace_products};
use qera_gpu::{DeviceError, DeviceOperand, DeviceR, Offload, eigen};

use crate::CheckFailure;
use crate::inputs::{distance, floats, least_of_three, timed};

/// Vectors of a block.
const VECTORS: usize = 48;
/// Of the eigenproblem.
const SMALL: usize = 512;

/// Every size, square.
pub(crate) fn all(
    offload: &Arc<Offload>,
    compute: Compute<'_>,
    sizes: &[usize],
) -> Result<Vec<serde_json::Value>, CheckFailure> {
    let mut found = Vec::new();
    for &m in sizes {
        let error = floats(2, m * m);
        found.push(operand(offload, compute, &error, m)?);
        found.push(second_moment(offload, compute, &error, m)?);
    }
    let small = SMALL.min(sizes.iter().copied().max().unwrap_or_default());
    found.push(eigenproblem(offload, small)?);
    Ok(found)
}

/// X^T B.
fn operand(
    offload: &Arc<Offload>,
    compute: Compute<'_>,
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
        "device_f64_s": device_f64_s,
        "host_s": host_s,
        "device_error": distance(&there, &exact),
        "host_error": distance(&here, &exact),
    }))
}

/// R in f64, and tr(R P P^T).
fn second_moment(
    offload: &Arc<Offload>,
    compute: Compute<'_>,
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

/// A symmetric eigenproblem, by its residual.
fn eigenproblem(offload: &Arc<Offload>, n: usize) -> Result<serde_json::Value, CheckFailure> {
    let half = floats(6, n * n);
    let g = Mat::from_fn(n, n, |i, j| {
        f64::from(half[i + j * n]) + f64::from(half[j + i * n])
    });
    let whole: Vec<f64> = g
        .col_iter()
        .flat_map(|column| column.iter().copied())
        .collect();
    let (mut vectors, mut values) = (whole.clone(), vec![0.0; n]);
    let device_s = least_of_three(|| {
        vectors.copy_from_slice(&whole);
        eigen(offload, &mut vectors, &mut values)
    })?;
    let v = Mat::from_fn(n, n, |i, j| vectors[i + j * n]);
    let scaled = Mat::from_fn(n, n, |i, j| vectors[i + j * n] * values[j]);
    let residual = (&g * &v - scaled).norm_max() / g.norm_l2();
    Ok(serde_json::json!({
        "work": "eigenproblem",
        "n": n,
        "device_s": device_s,
        "residual": residual,
    }))
}
