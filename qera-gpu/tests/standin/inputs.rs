//! Numbers to compute with, and how far a result is from what it is to be.

use half::{bf16, f16};
use qera_core::dtype::FloatDtype;
use qera_core::pseudo_random::SplitMix64;

/// Numbers between -1 and 1, some of them a hundred times as large.
pub(crate) fn numbers(seed: u64, count: usize) -> Vec<f64> {
    let mut sequence = SplitMix64::new(seed);
    (0..count)
        .map(|i| sequence.next_symmetric() * if i % 17 == 3 { 100.0 } else { 1.0 })
        .collect()
}

/// The same in f32.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding is what is wanted"
)]
pub(crate) fn floats(seed: u64, count: usize) -> Vec<f32> {
    numbers(seed, count).iter().map(|x| *x as f32).collect()
}

/// Rows in a type: their bytes, and what these mean.
pub(crate) fn rows(seed: u64, count: usize, dtype: FloatDtype) -> (Vec<u8>, Vec<f64>) {
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    for x in floats(seed, count) {
        let value = match dtype {
            FloatDtype::F32 => {
                bytes.extend(x.to_le_bytes());
                x
            }
            FloatDtype::F16 => {
                // Some below the smallest normal number.
                let x = f16::from_f32(if x.abs() < 0.05 { x * 1e-4 } else { x });
                bytes.extend(x.to_le_bytes());
                x.to_f32()
            }
            FloatDtype::Bf16 => {
                let x = bf16::from_f32(x);
                bytes.extend(x.to_le_bytes());
                x.to_f32()
            }
        };
        values.push(f64::from(value));
    }
    (bytes, values)
}

/// The packed upper triangle of sum over rows of w x^T x.
pub(crate) fn gram(values: &[f64], m: usize, weight: impl Fn(usize) -> f64) -> Vec<f64> {
    let mut packed = vec![0.0; m * (m + 1) / 2];
    for (r, row) in values.chunks_exact(m).enumerate() {
        let mut at = 0;
        for i in 0..m {
            for j in i..m {
                packed[at] += weight(r) * row[i] * row[j];
                at += 1;
            }
        }
    }
    packed
}

/// An R: a mean of products.
pub(crate) fn second_moment(seed: u64, m: usize) -> Vec<f64> {
    let rows = 2 * m + 3;
    let mut r = gram(&numbers(seed, rows * m), m, |_| 1.0 / rows as f64);
    // Not on the grid of f32.
    r.iter_mut().for_each(|x| *x *= 1.0 + 1e-9);
    r
}

/// Element (i, j) of a packed triangle.
pub(crate) fn element(packed: &[f64], m: usize, i: usize, j: usize) -> f64 {
    let (i, j) = (i.min(j), i.max(j));
    packed[i * (2 * m - i + 1) / 2 + j - i]
}

/// The largest difference of elements of two packed triangles over sqrt(R_ii R_jj).
pub(crate) fn entry_error(found: &[f64], expected: &[f64], m: usize) -> f64 {
    let mut worst = 0.0_f64;
    for i in 0..m {
        for j in i..m {
            let size = element(expected, m, i, i) * element(expected, m, j, j);
            let error = element(found, m, i, j) - element(expected, m, i, j);
            worst = worst.max(error.abs() / size.sqrt());
        }
    }
    assert!(found.iter().all(|x| x.is_finite()));
    worst
}

/// X^T B by columns for X^T (b x depth) and B (depth x n), both by columns.
pub(crate) fn product(
    x: &[f64],
    matrix: impl Fn(usize, usize) -> f64,
    b: usize,
    n: usize,
) -> Vec<f64> {
    let depth = x.len() / b;
    let mut out = vec![0.0; b * n];
    for j in 0..n {
        for l in 0..depth {
            let factor = matrix(l, j);
            for i in 0..b {
                out[i + j * b] += x[i + l * b] * factor;
            }
        }
    }
    out
}

/// The largest difference over the largest size.
pub(crate) fn distance(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let size = expected.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
    let pairs = found.iter().zip(expected);
    pairs.fold(0.0_f64, |max, (x, y)| {
        assert!(x.is_finite());
        max.max((x - y).abs())
    }) / size
}
