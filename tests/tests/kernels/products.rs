//! Products of a few vectors with large matrices, and traces of products.

use qera_core::dtype::FloatDtype;
use qera_daemon::{ColumnMajor, Kernel, Scratch, trace_products};
use qera_tests::matrix::Matrix;
use qera_tests::spectra::{packed, uniform};

use super::{Encoded, activations, with_compute};

/// R = X^T X / rows with channels of different size, in f64.
fn autocorrelation(m: usize, rows: usize) -> Matrix {
    let encoded = Encoded::new(&activations(rows, m), m, FloatDtype::F32);
    encoded.sums().scale(1.0 / rows as f64)
}

/// tr(R P P^T) of matrices as large as those that come here, and of odd ones.
#[test]
fn traces_of_products() {
    // Where there are few terms their rounding does not average out.
    for (m, n, allowed) in [
        (1, 1, 1e-15),
        (5, 700, 1e-7),
        (97, 513, 1e-8),
        (193, 1025, 1e-8),
        (577, 900, 1e-8),
        (700, 577, 1e-8),
    ] {
        let r = autocorrelation(m, m + 3);
        let packed = packed(&r);
        let p = uniform(m, n, 9);
        let values: Vec<f32> = p.as_slice().iter().map(|x| *x as f32 * 0.01).collect();
        let wide = Matrix::from_columns(m, n, values.iter().map(|x| f64::from(*x)).collect());
        let expected = (&(&wide.transpose() * &r) * &wide).trace();
        for kernel in Kernel::available() {
            let found = with_compute(kernel, 2, |compute| {
                let columns = ColumnMajor::new(&values, m);
                trace_products(compute, columns, &packed, &mut Scratch::default())
            });
            let error = (found / expected - 1.0).abs();
            let name = kernel.name();
            println!("{name} {m} x {n}: {error:e}");
            assert!(error <= allowed, "{name} {m} x {n}: {error:e}");
        }
    }
}

/// A few vectors times the columns of a matrix: depths and columns on both sides of every block.
#[test]
fn products_with_a_few_vectors() {
    for b in [1, 15, 16, 17, 33, 48, 49, 100] {
        for (depth, n) in [
            (1, 1),
            (3, 7),
            (97, 49),
            (511, 193),
            (769, 5),
            (1025, 97),
            (2049, 33),
        ] {
            let x = uniform(b, depth, 1 + b as u64).to_faer();
            let columns: Vec<f32> = activations(n, depth);
            let wide = Matrix::from_columns(
                depth,
                n,
                columns.iter().map(|value| f64::from(*value)).collect(),
            );
            let exact = &x * wide.to_faer();
            let (lengths, sizes) = (
                |i: usize| x.row(i).norm_l2(),
                |j: usize| wide.to_faer().col(j).norm_l2(),
            );
            let lengths: Vec<f64> = (0..b).map(lengths).collect();
            let sizes: Vec<f64> = (0..n).map(sizes).collect();
            let bound = |i: usize, j: usize| lengths[i] * sizes[j];
            for kernel in Kernel::available() {
                let columns = ColumnMajor::new(&columns, depth);
                for (in_f64, tolerance) in [(false, 1e-6), (true, 1e-15)] {
                    let of = |threads| {
                        with_compute(kernel, threads, |compute| {
                            let operand = compute.operand(columns);
                            if in_f64 {
                                operand.times_f64(x.as_ref())
                            } else {
                                operand.times(x.as_ref())
                            }
                        })
                    };
                    let found = of(1);
                    assert_eq!((found.nrows(), found.ncols()), (b, n));
                    let name = kernel.name();
                    assert!(of(3) == found, "{name}: as many bytes as cores");
                    let relative = |i, j| (found[(i, j)] - exact[(i, j)]).abs() / bound(i, j);
                    for (i, j) in (0..n).flat_map(|j| (0..b).map(move |i| (i, j))) {
                        let allowed = tolerance * bound(i, j);
                        assert!(
                            (found[(i, j)] - exact[(i, j)]).abs() <= allowed,
                            "{name}, f64 {in_f64}: {b} vectors, {depth} x {n}: {:e}",
                            relative(i, j)
                        );
                    }
                }
            }
        }
    }
}
