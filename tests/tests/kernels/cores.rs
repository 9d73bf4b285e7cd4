//! Bytes and the number of cores.

use qera_daemon::{ColumnMajor, Compute, Cores, Scratch, trace_products};
use qera_tests::spectra::uniform;

use super::{DTYPES, Encoded, activations, fold, kernels, same_bytes, with_compute};

/// No bit depends on the number of cores, nor on whether the caller has one.
#[test]
fn any_number_of_cores_gives_the_same_bytes() {
    let (m, rows) = (289, 1537);
    let vectors = uniform(49, m, 5).to_faer();
    for dtype in DTYPES {
        let encoded = Encoded::new(&activations(rows, m), m, dtype);
        let numbers: Vec<f32> = encoded.wide.iter().map(|x| *x as f32).collect();
        for kernel in kernels() {
            let all = |compute: Compute<'_>| {
                let mut found = fold(compute, &[encoded.stored()], m);
                let columns = ColumnMajor::new(&numbers, m);
                let mut scratch = Scratch::default();
                found.push(trace_products(compute, columns, &found, &mut scratch));
                let operand = compute.operand(columns);
                let skinny = operand.times(vectors.as_ref());
                found.extend(skinny.col_iter().flat_map(|c| c.iter().copied()));
                let skinny = operand.times_f64(vectors.as_ref());
                found.extend(skinny.col_iter().flat_map(|c| c.iter().copied()));
                found
            };
            let one = with_compute(kernel, 1, all);
            for threads in [2, 3] {
                assert!(same_bytes(&one, &with_compute(kernel, threads, all)));
                // The caller holds none: one thread more computes.
                let cores = &Cores::new(threads);
                assert!(same_bytes(&one, &all(Compute::new(kernel, cores))));
            }
            let busy = &Cores::new(2);
            let _both = (busy.take(), busy.take());
            assert!(same_bytes(&one, &all(Compute::new(kernel, busy))));
        }
    }
}
