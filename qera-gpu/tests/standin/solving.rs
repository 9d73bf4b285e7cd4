//! Products, traces and eigenproblems on the device.

use crate::device;
use crate::inputs::{distance, element, floats, numbers, product, second_moment};
use qera_gpu::{DeviceOperand, DeviceR, eigen};

/// Of f32 products and sums, relative to the largest result.
const F32_ERROR: f64 = 2e-6;
/// Of f64 ones.
const F64_ERROR: f64 = 1e-14;

/// Sizes around the pieces in which columns are widened.
const SIZES: [(usize, usize); 4] = [(1, 1), (40, 300), (300, 40), (257, 513)];

#[test]
fn an_operand_multiplies_both_ways() {
    let (offload, b) = (device(), 7);
    for (depth, n) in SIZES {
        let values = floats(1, depth * n);
        let operand = DeviceOperand::new(&offload, &values, depth).unwrap();
        let matrix = |i: usize, j: usize| f64::from(values[i + j * depth]);
        let (x, y) = (numbers(2, b * depth), numbers(3, b * n));
        let expected = product(&x, matrix, b, n);
        let transposed = product(&y, |j, i| matrix(i, j), b, depth);
        let mut out = vec![f64::NAN; b * n];
        operand.times(&x, b, &mut out).unwrap();
        assert!(distance(&out, &expected) < F32_ERROR, "{depth} x {n}");
        operand.times_f64(&x, b, &mut out).unwrap();
        assert!(distance(&out, &expected) < F64_ERROR, "{depth} x {n}");
        let mut out = vec![f64::NAN; b * depth];
        operand.transposed_times(&y, b, &mut out).unwrap();
        assert!(distance(&out, &transposed) < F32_ERROR, "{depth} x {n}");
        operand.transposed_times_f64(&y, b, &mut out).unwrap();
        assert!(distance(&out, &transposed) < F64_ERROR, "{depth} x {n}");
    }
}

#[test]
fn a_part_of_an_operand_multiplies() {
    let (offload, depth, n, b) = (device(), 50, 31, 6);
    let values = floats(4, depth * n);
    let operand = DeviceOperand::new(&offload, &values, depth).unwrap();
    let (rows, columns) = (9..33, 5..30);
    let x = numbers(5, b * rows.len());
    let matrix = |i: usize, j: usize| f64::from(values[9 + i + (5 + j) * depth]);
    let expected = product(&x, matrix, b, columns.len());
    let mut out = vec![f64::NAN; b * columns.len()];
    operand
        .times_part(rows, columns.clone(), &x, b, &mut out)
        .unwrap();
    assert!(distance(&out, &expected) < F32_ERROR);
    let beyond = operand.times_part(40..51, columns, &x, b, &mut out);
    assert!(beyond.is_err());
}

#[test]
fn r_multiplies_in_f64_and_scaled_in_f32() {
    let (offload, b) = (device(), 5);
    for m in [1, 30, 300] {
        let packed = second_moment(6, m);
        let r = DeviceR::new(&offload, &packed, m).unwrap();
        let x = numbers(7, b * m);
        let expected = product(&x, |i, j| element(&packed, m, i, j), b, m);
        let mut out = vec![f64::NAN; b * m];
        r.times(&x, b, &mut out).unwrap();
        assert!(distance(&out, &expected) < F64_ERROR, "{m}");
        let scaled = r.scaled(4.0).unwrap();
        drop(r);
        scaled.times(&x, b, &mut out).unwrap();
        out.iter_mut().for_each(|x| *x *= 4.0);
        assert!(distance(&out, &expected) < F32_ERROR, "{m}");
    }
}

#[test]
fn traces_are_those_of_the_whole_product() {
    let offload = device();
    // More columns than a piece has; more channels than a panel.
    for (m, n) in [(1, 3), (24, 1500), (530, 20)] {
        let packed = second_moment(8, m);
        let p = floats(9, m * n);
        let r = DeviceR::new(&offload, &packed, m).unwrap();
        let columns: Vec<f64> = p.iter().map(|x| f64::from(*x)).collect();
        // R P, then the sum over all elements of P times it.
        let mut rp = vec![0.0; m * n];
        for c in 0..n {
            for j in 0..m {
                let factor = columns[j + c * m];
                for i in 0..m {
                    rp[i + c * m] += element(&packed, m, i, j) * factor;
                }
            }
        }
        let expected: f64 = rp.iter().zip(&columns).map(|(x, y)| x * y).sum();
        let found = r.trace_with(&p).unwrap();
        let error = (found / expected - 1.0).abs();
        assert!(error < 1e-12, "{m} x {n}: {error:e}");
        assert!(r.trace_with(&vec![0.0; m * n]).unwrap().abs() < 1e-300);
    }
}

#[test]
fn eigenpairs_rebuild_their_matrix() {
    let (offload, n) = (device(), 60);
    let packed = second_moment(10, n);
    let whole: Vec<f64> = (0..n * n)
        .map(|at| element(&packed, n, at % n, at / n))
        .collect();
    let (mut vectors, mut values) = (whole.clone(), vec![0.0; n]);
    eigen(&offload, &mut vectors, &mut values).unwrap();
    assert!(values.is_sorted());
    let mut rebuilt = vec![0.0; n * n];
    let mut gram = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..n {
            for k in 0..n {
                rebuilt[i + j * n] += vectors[i + k * n] * values[k] * vectors[j + k * n];
                gram[i + j * n] += vectors[k + i * n] * vectors[k + j * n];
            }
        }
    }
    let identity: Vec<f64> = (0..n * n)
        .map(|at| f64::from(u8::from(at % n == at / n)))
        .collect();
    assert!(distance(&rebuilt, &whole) < 1e-12);
    assert!(distance(&gram, &identity) < 1e-12);
    whole
        .iter()
        .zip(&vectors)
        .for_each(|(a, v)| assert!(a.is_finite() && v.is_finite()));
    let mut nan = vec![f64::NAN; 4];
    assert!(eigen(&offload, &mut nan, &mut [0.0; 2]).is_err());
}

/// Solves from several threads wait for each other, and folds do not disturb them.
#[test]
fn solves_side_by_side_keep_their_vectors_apart() {
    let offload = device();
    std::thread::scope(|scope| {
        for thread in 0..3_u64 {
            let offload = &offload;
            scope.spawn(move || {
                let (depth, n, b) = (30 + 7 * usize::try_from(thread).unwrap(), 50, 4);
                let values = floats(thread, depth * n);
                let operand = DeviceOperand::new(offload, &values, depth).unwrap();
                for round in 0..10 {
                    let x = numbers(round, b * depth);
                    let matrix = |i: usize, j: usize| f64::from(values[i + j * depth]);
                    let mut out = vec![f64::NAN; b * n];
                    operand.times(&x, b, &mut out).unwrap();
                    assert!(distance(&out, &product(&x, matrix, b, n)) < F32_ERROR);
                }
            });
        }
    });
}
