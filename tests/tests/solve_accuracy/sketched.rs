//! The sketch by matrix products on real layers: near the smallest error, whole and in two merged
//! halves, and at a shrinkage near that of R.

use faer::Mat;
use qera_core::packed::{packed_len, packed_offset};
use qera_core::rows::Rows;
use qera_core::statistics::Autocorrelation;
use qera_daemon::{
    ColumnMajor, Compute, Cores, Kernel, LayerProblem, LowRankTerm, OutputSketch, SKETCH_ROWS,
    SketchedProblem, StoredRows,
};
use qera_tests::reference::{LAYERS, ReferenceLayer, reference_folder};
use qera_tests::tier;

const RANK: usize = 32;

/// tr(R P P^T) as the mean over the rows, in f64.
fn left(layer: &ReferenceLayer, error: &Mat<f64>, term: &LowRankTerm) -> f64 {
    let p = error - &term.a * term.b_transposed.transpose();
    let m = layer.in_features;
    let rows = layer.rows.len() / m;
    let x = Mat::from_fn(rows, m, |i, j| f64::from(layer.rows[i * m + j]));
    (x * p).squared_norm_l2() / rows as f64
}

/// The sketch of these rows by blocks, as the daemon shrinks them in.
fn folded(compute: Compute<'_>, error: ColumnMajor<'_>, rows: &[f32], l: usize) -> OutputSketch {
    let mut sketch = OutputSketch::new(l - 1, error.values.len() / error.rows);
    for block in rows.chunks(SKETCH_ROWS * error.rows) {
        let rows = StoredRows::floats(block, error.rows);
        sketch.fold(compute, error, rows).unwrap();
    }
    sketch
}

#[test]
fn a_sketch_on_the_host_is_near_the_optimum() {
    let Some(folder) = reference_folder("a_sketch_on_the_host_is_near_the_optimum") else {
        return;
    };
    let cores = Cores::new(1);
    let _core = cores.take();
    let compute = Compute::new(Kernel::best(), &cores);
    for name in tier::cases(&LAYERS[..1], &LAYERS[..]) {
        let layer = ReferenceLayer::load(&folder, name);
        let (m, n, values) = (layer.in_features, layer.out_features, layer.error(3, 32));
        let error = Mat::from_fn(m, n, |i, j| f64::from(values[j * m + i]));
        let mut packed = vec![0.0; packed_len(m)];
        let mut r = Autocorrelation::new(&mut packed, m).unwrap();
        r.update(&Rows::new(&layer.rows, m).unwrap()).unwrap();
        let diagonal: Vec<f64> = (0..m).map(|i| packed[packed_offset(m, i)]).collect();
        // The error of a solve with the whole of R at each shrinkage; 1 is QERA-approx.
        let by_r = |a: f64| {
            let mut shrunk = packed.clone();
            for i in 0..m {
                let row = packed_offset(m, i);
                shrunk[row + 1..row + m - i]
                    .iter_mut()
                    .for_each(|r| *r *= 1.0 - a);
            }
            let problem = LayerProblem {
                autocorrelation: &shrunk,
                error: &values,
                in_features: m,
                rank: RANK,
            };
            left(&layer, &error, &problem.solve(compute, None).unwrap())
        };
        let (shrunk, approx) = (by_r(0.1), by_r(1.0));
        let optimum = layer.golden["formats"]["mxint3_bs32"]["optimal_f64"]["32"].as_f64();
        let best = optimum.unwrap().powi(2);
        for (l, most) in [(64, 0.06), (128, 0.005)] {
            let of = |rows: &[f32]| folded(compute, ColumnMajor::new(&values, m), rows, l);
            let (first, second) = layer.rows.split_at(layer.rows.len() / 2);
            let mut halves = of(first);
            halves.merge(&of(second)).unwrap();
            for sketch in [of(&layer.rows), halves] {
                let of = |shrinkage| {
                    let problem = SketchedProblem {
                        sketch: &sketch,
                        diagonal: &diagonal,
                        error: &values,
                        rank: RANK,
                        shrinkage,
                    };
                    left(&layer, &error, &problem.solve(compute).unwrap())
                };
                let (f, at_a_tenth) = (of(0.0), of(0.1));
                let excess = f / best - 1.0;
                assert!((-1e-6..=most).contains(&excess), "{name} {l}: {excess:.4}");
                let excess = at_a_tenth / shrunk - 1.0;
                assert!(excess <= most, "{name} {l} at .1: {excess:.4}");
                assert!(f.max(at_a_tenth) < approx, "{name} {l}: {approx}");
                let optimum = sketch.optimum(RANK).unwrap();
                assert!(optimum.least <= best * (1.0 + 1e-6) && f <= optimum.most * (1.0 + 1e-6));
            }
        }
    }
}
