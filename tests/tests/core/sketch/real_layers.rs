//! Real layers: what a sketch leaves above the smallest error, and QERA-approx beside it.

use qera_core::packed::{packed_len, packed_offset};
use qera_core::reconstruct::{
    Method, Problem, Shrinkage, Statistic, output_error, output_error_workspace_len, reconstruct,
    reconstruct_sketched, reconstruct_sketched_shrunk, reconstruct_workspace_len,
    sketched_workspace_len,
};
use qera_core::rows::Rows;
use qera_core::statistics::{Autocorrelation, ErrorSketch, SketchRoom, error_sketch_workspace_len};
use qera_tests::matrix::Matrix;
use qera_tests::reference::{LAYERS, ReferenceLayer, reference_folder};
use qera_tests::tier;

const RANK: usize = 32;
/// None, and some: then the smallest error is that of R shrunk alike.
const SHRINKAGES: [f64; 2] = [0.0, 0.1];
/// Rows that are shrunk in at a time.
const BLOCK: usize = 128;

/// A layer of the reference, as many of its rows as are asked for, at 3 bits.
struct Sketching {
    layer: ReferenceLayer,
    rows: usize,
    error: Vec<f32>,
    packed: Vec<f64>,
}

impl Sketching {
    fn new(layer: ReferenceLayer, rows: usize) -> Self {
        let error = layer.error(3, 32);
        let m = layer.in_features;
        let mut packed = vec![0.0; packed_len(m)];
        Autocorrelation::new(&mut packed, m)
            .unwrap()
            .update(&Rows::new(&layer.rows[..rows * m], m).unwrap())
            .unwrap();
        Self {
            layer,
            rows,
            error,
            packed,
        }
    }

    fn columns(&self) -> impl FnMut(usize, &mut [f32]) + '_ {
        let m = self.layer.in_features;
        move |first, columns| columns.copy_from_slice(&self.error[first * m..][..columns.len()])
    }

    /// f of a method with R, or of the sketch of so many rows in one piece or two merged halves.
    fn f(&self, solve: impl FnOnce(&Problem<'_>, &mut Matrix, &mut Matrix)) -> f64 {
        let (m, n) = (self.layer.in_features, self.layer.out_features);
        let wide = self.error.iter().map(|e| f64::from(*e)).collect();
        let error = Matrix::from_columns(m, n, wide);
        let statistic = Statistic::Autocorrelation(&self.packed);
        let problem = Problem::new(error.view(), statistic, RANK).unwrap();
        let (mut a, mut b) = (Matrix::zeros(m, RANK), Matrix::zeros(RANK, n));
        solve(&problem, &mut a, &mut b);
        let mut workspace = vec![0.0; output_error_workspace_len(m)];
        output_error(&problem, a.view(), b.view(), &mut workspace).unwrap()
    }

    fn by(&self, method: Method, shrinkage: f64) -> f64 {
        self.f(|problem, a, b| {
            let problem = problem.with_shrinkage(shrinkage).unwrap();
            let (m, n) = (problem.in_features(), problem.out_features());
            let mut workspace = vec![0.0; reconstruct_workspace_len(m, n, RANK)];
            let (a, b) = (a.view_mut(), b.view_mut());
            reconstruct(method, &problem, a, b, &mut [], &mut workspace).unwrap();
        })
    }

    /// f at each of [`SHRINKAGES`].
    fn sketched(&self, l: usize, parts: usize) -> [f64; 2] {
        let (m, n) = (self.layer.in_features, self.layer.out_features);
        let mut states = vec![vec![0.0; (l - 1) * n]; parts];
        let (mut errors, mut columns) = (vec![0.0; BLOCK * n], vec![0.0; m]);
        let block = BLOCK.max(l - 1);
        let mut workspace = vec![0.0; error_sketch_workspace_len(l - 1, block)];
        let each = self.rows / parts * m;
        let mut whole: Option<ErrorSketch<'_>> = None;
        for (state, rows) in states.iter_mut().zip(self.layer.rows.chunks_exact(each)) {
            let mut sketch = ErrorSketch::new(state, n).unwrap();
            let mut room = SketchRoom {
                errors: &mut errors,
                columns: &mut columns,
                workspace: &mut workspace,
            };
            let rows = Rows::new(rows, m).unwrap();
            sketch
                .update(&rows, &mut self.columns(), &mut room)
                .unwrap();
            match &mut whole {
                None => whole = Some(sketch),
                Some(whole) => whole.merge(&sketch, &mut workspace).unwrap(),
            }
        }
        let sketch = whole.unwrap();
        let diagonal: Vec<f64> = (0..m).map(|i| self.packed[packed_offset(m, i)]).collect();
        SHRINKAGES.map(|share| {
            self.f(|_, a, b| {
                let (a, b, mut error) = (a.view_mut(), b.view_mut(), self.columns());
                let report = if share > 0.0 {
                    let shrinkage = Shrinkage {
                        diagonal: &diagonal,
                        share,
                    };
                    let mut workspace = vec![0.0; sketched_workspace_len(m, n, RANK)];
                    reconstruct_sketched_shrunk(
                        &sketch,
                        shrinkage,
                        &mut error,
                        &mut columns,
                        a,
                        b,
                        &mut workspace,
                    )
                } else {
                    reconstruct_sketched(&sketch, &mut error, &mut columns, a, b)
                };
                report.unwrap();
            })
        })
    }
}

#[test]
fn a_sketch_is_near_the_optimum_and_below_approx() {
    let Some(folder) = reference_folder("a_sketch_is_near_the_optimum_and_below_approx") else {
        return;
    };
    let layers = tier::cases(&LAYERS[..1], &LAYERS[..]);
    let rows = tier::cases(1024, 4096);
    let lengths: &[(usize, f64)] = tier::cases(&[(64, 0.06)], &[(64, 0.06), (128, 0.005)]);
    for name in layers {
        let sketching = Sketching::new(ReferenceLayer::load(&folder, name), rows);
        let best = SHRINKAGES.map(|a| sketching.by(Method::Exact, a));
        let approx = sketching.by(Method::Approx, 0.0);
        for &(l, most) in lengths {
            for parts in [1, 2] {
                let found = sketching.sketched(l, parts);
                let least = (found[0] / best[0] - 1.0).min(0.0);
                assert!(least > -1e-9, "{name} {l}: below the optimum, {least:e}");
                for ((f, best), a) in found.iter().zip(best).zip(SHRINKAGES) {
                    let excess = f / best - 1.0;
                    assert!(
                        excess <= most && *f < approx,
                        "{name} l = {l}, {parts} parts, a = {a}: {excess:.4} above, approx {:.3}",
                        approx / best - 1.0
                    );
                }
            }
        }
    }
}
