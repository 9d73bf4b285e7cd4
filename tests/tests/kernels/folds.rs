//! X^T X of many rows, folded as a mean.

use qera_core::dtype::{FloatDtype, MAGNITUDE_MAX};
use qera_daemon::{ENTRY_ERROR, SUM_ROWS, StoredRows};

use super::{DTYPES, Encoded, activations, entry_error, fold, kernels, same_bytes, with_compute};

/// Widths that are no multiple of any tile, and one less and one more than a task.
const WIDTHS: [usize; 9] = [1, 2, 5, 47, 48, 49, 97, 193, 577];
/// Odd numbers for pairs of rows; on both sides of what is summed in f32 and of a block.
const ROWS: [usize; 7] = [1, 2, 3, 511, 513, 1025, 2049];

/// Every form is within the bound of the exact products, and so within twice the bound of every
/// other.
fn every_shape(dtype: FloatDtype) {
    let mut worst = 0.0_f64;
    for m in WIDTHS {
        for rows in ROWS {
            let encoded = Encoded::new(&activations(rows, m), m, dtype);
            for kernel in kernels() {
                let found =
                    with_compute(kernel, 2, |compute| fold(compute, &[encoded.stored()], m));
                let error = entry_error(&found, &[&encoded]);
                let name = kernel.name();
                assert!(
                    error <= ENTRY_ERROR,
                    "{name} {dtype}: {rows} rows of {m}: {error:e}"
                );
                worst = worst.max(error);
            }
        }
    }
    println!("{dtype}: worst error of an entry {worst:e}");
}

#[test]
fn every_shape_of_f32_rows() {
    every_shape(FloatDtype::F32);
}

#[test]
fn every_shape_of_f16_rows() {
    every_shape(FloatDtype::F16);
}

#[test]
fn every_shape_of_bf16_rows() {
    every_shape(FloatDtype::Bf16);
}

/// Shards of different length and size, folded one after the other, are the mean over all rows.
#[test]
fn shards_are_folded_as_one_mean() {
    for dtype in DTYPES {
        for m in [5, 97, 193] {
            let shards: Vec<Encoded> = [511, 1, 1025, 2, 2049]
                .into_iter()
                .map(|rows| {
                    let size = if rows % 4 == 1 { 30.0 } else { 1.0 };
                    let values = activations(rows, m);
                    let values: Vec<f32> = values.iter().map(|x| x * size / 16.0).collect();
                    Encoded::new(&values, m, dtype)
                })
                .collect();
            let stored: Vec<StoredRows<'_>> = shards.iter().map(Encoded::stored).collect();
            let all: Vec<&Encoded> = shards.iter().collect();
            for kernel in kernels() {
                let found = with_compute(kernel, 2, |compute| fold(compute, &stored, m));
                let error = entry_error(&found, &all);
                assert!(
                    error <= ENTRY_ERROR,
                    "{} {dtype} {m}: {error:e}",
                    kernel.name()
                );
            }
        }
    }
}

/// Sums of the largest numbers that are let in stay finite; the smallest ones may be lost, and
/// nothing else.
#[test]
fn the_largest_and_the_smallest_numbers() {
    let (m, rows) = (49, 4097);
    let tiny = f32::from_bits(0x0003_0000);
    let sign = |i: usize| if i.is_multiple_of(3) { -1.0 } else { 1.0 };
    let largest: Vec<f32> = (0..m * rows).map(|i| sign(i) * MAGNITUDE_MAX).collect();
    let of_one_sign = vec![MAGNITUDE_MAX; m * rows];
    // Subnormal channels among normal ones, and beside massive ones.
    let smallest: Vec<f32> = (0..m * rows)
        .map(|i| match (i % m) % 4 {
            0 => sign(i) * tiny,
            1 => sign(i) * 1e4,
            2 => tiny * (i % 5) as f32 + if i.is_multiple_of(2) { 1.0 } else { 0.0 },
            _ => sign(i + 1),
        })
        .collect();
    let zeros: Vec<f32> = (0..m * rows).map(|i| sign(i) * 0.0).collect();
    for values in [&largest, &of_one_sign, &smallest, &zeros] {
        for dtype in [FloatDtype::F32, FloatDtype::Bf16] {
            let encoded = Encoded::new(values, m, dtype);
            for kernel in kernels() {
                let found =
                    with_compute(kernel, 1, |compute| fold(compute, &[encoded.stored()], m));
                let error = entry_error(&found, &[&encoded]);
                let name = kernel.name();
                assert!(error <= ENTRY_ERROR, "{name} {dtype}: {error:e}");
            }
        }
    }
}

#[test]
fn constant_channels() {
    let (m, rows) = (128, 2049);
    let values: Vec<f32> = (0..m * rows)
        .map(|i| 1.0 + (i % m) as f32 / 128.0)
        .collect();
    for dtype in DTYPES {
        let encoded = Encoded::new(&values, m, dtype);
        for kernel in kernels() {
            let found = with_compute(kernel, 1, |compute| fold(compute, &[encoded.stored()], m));
            let error = entry_error(&found, &[&encoded]);
            let name = kernel.name();
            assert!(error <= allowed_of_constants(), "{name} {dtype}: {error:e}");
        }
    }
}

/// The most that channels which are the same in every row may lose. They may be rounded the same
/// way in every step: then half a last place is lost at each addition, half of the additions having
/// the last place of the whole sum, a quarter half of that: SUM_ROWS / 3 2^-24 together.
fn allowed_of_constants() -> f64 {
    (SUM_ROWS as f64 / 3.0 + 2.0) * f64::from(f32::EPSILON) / 2.0
}

/// What is split into two bf16 numbers is exact: numbers whose lower parts are as large as they
/// get, all of one sign (without the product of the lower parts 5e-5 would be lost), and the
/// smallest and the largest of f16.
#[test]
fn every_bit_of_f16_counts() {
    let (m, rows) = (33, 1500);
    let value = |i: usize| match i % m % 4 {
        0 => 1.0 + 7.0 / 1024.0,
        1 => (1.0 + 1023.0 / 1024.0) * 0.5_f32.powi(24 - (i % 3) as i32),
        2 => 65504.0,
        _ => 1.0 + (i % 1024) as f32 / 1024.0,
    };
    let values: Vec<f32> = (0..m * rows).map(value).collect();
    let encoded = Encoded::new(&values, m, FloatDtype::F16);
    for kernel in kernels() {
        let found = with_compute(kernel, 1, |compute| fold(compute, &[encoded.stored()], m));
        let error = entry_error(&found, &[&encoded]);
        let name = kernel.name();
        assert!(error <= allowed_of_constants(), "{name}: {error:e}");
    }
}

/// Rows that were decoded give the bytes of rows as they came, also where they are multiplied in
/// bf16.
#[test]
fn decoded_rows_give_the_same_bytes() {
    let (m, rows) = (97, 1537);
    for dtype in DTYPES {
        let encoded = Encoded::new(&activations(rows, m), m, dtype);
        let numbers: Vec<f32> = encoded.wide.iter().map(|x| *x as f32).collect();
        for kernel in kernels() {
            with_compute(kernel, 2, |compute| {
                let as_bytes = fold(compute, &[encoded.stored()], m);
                let decoded = fold(compute, &[StoredRows::floats(&numbers, m)], m);
                assert!(same_bytes(&as_bytes, &decoded), "{} {dtype}", kernel.name());
            });
        }
    }
}
