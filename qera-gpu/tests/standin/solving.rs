//! Products and traces on the device.

use crate::device;
use crate::inputs::{distance, element, floats, numbers, product, second_moment};
use qera_gpu::{DeviceFeedback, DeviceOperand, DeviceR};

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

/// Errors arrive from the last inputs to the first, as rounding makes them; inputs get what those
/// behind them leave, and lengths that do not fit are refused.
#[test]
fn later_errors_are_summed_for_earlier_inputs() {
    let (offload, m, n) = (device(), 50, 31);
    let (u, errors) = (floats(4, m * m), floats(5, m * n));
    let mut there = DeviceFeedback::new(&offload, &u, m, n).unwrap();
    for inputs in [40..50, 17..40, 0..17] {
        let mut due = vec![f32::NAN; inputs.len() * n];
        there.due(inputs.clone(), &mut due).unwrap();
        let expected: Vec<f64> = inputs
            .clone()
            .flat_map(|k| (0..n).map(move |i| (k, i)))
            .map(|(k, i)| {
                let of = |j: usize| f64::from(errors[j * n + i]) * f64::from(u[k * m + j]);
                (inputs.end..m).map(of).sum()
            })
            .collect();
        let due: Vec<f64> = due.iter().map(|x| f64::from(*x)).collect();
        if inputs.end < m {
            assert!(distance(&due, &expected) < F32_ERROR, "{inputs:?}");
        } else {
            assert!(due.iter().all(|x| x.abs() < f64::MIN_POSITIVE));
        }
        let made = &errors[inputs.start * n..inputs.end * n];
        there.take(inputs.clone(), made).unwrap();
        assert!(there.take(inputs, &made[1..]).is_err());
    }
    assert!(there.due(50..51, &mut vec![0.0; n]).is_err());
    assert!(there.due(0..1, &mut vec![0.0; n - 1]).is_err());
    assert!(there.take(49..51, &floats(6, 2 * n)).is_err());
    assert!(DeviceFeedback::new(&offload, &u[1..], m, n).is_err());
    assert!(!offload.is_lost());
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
