//! The output-error sketch against G itself, and against Frequent Directions by a singular value
//! decomposition in f64.

mod bounds;
mod corrections;
mod real_layers;
mod refusals;

use qera_core::rows::Rows;
use qera_core::statistics::{ErrorSketch, SketchRoom, SketchTotals, error_sketch_workspace_len};
use qera_tests::matrix::Matrix;
use qera_tests::spectra::{Spectrum, spectrum, uniform};

/// What rows in f32 may change of a mean of squares, relative: d and the rows of the sketch.
const ROUNDING: f64 = 1e-6;

/// Inputs, the error that they meet, and what each row weighs.
struct Stream {
    x: Matrix,
    error: Matrix,
    weights: Vec<f32>,
}

impl Stream {
    /// `rows` rows of `m` channels whose sizes follow a spectrum; E is m x n, of rank at most
    /// `rank`.
    fn new(rows: usize, m: usize, n: usize, rank: usize, kind: Spectrum) -> Self {
        let sizes: Vec<f64> = spectrum(kind, m).iter().map(|s| s.abs().sqrt()).collect();
        let x = &uniform(rows, m, 3) * &Matrix::diagonal(&sizes);
        let error = if rank < m.min(n) {
            &uniform(m, rank, 4) * &uniform(rank, n, 5)
        } else {
            uniform(m, n, 6)
        };
        let narrow =
            |a: &Matrix| Matrix::from_fn(a.nrows(), a.ncols(), |i, j| f64::from(a[(i, j)] as f32));
        Self {
            x: narrow(&x),
            error: narrow(&error),
            weights: vec![1.0; rows],
        }
    }

    fn n(&self) -> usize {
        self.error.ncols()
    }

    /// The rows from `first` on, row-major.
    fn values(&self, first: usize, count: usize) -> Vec<f32> {
        (first..first + count)
            .flat_map(|i| (0..self.x.ncols()).map(move |j| self.x[(i, j)] as f32))
            .collect()
    }

    /// R of all rows.
    fn autocorrelation(&self) -> Matrix {
        let total: f64 = self.weights.iter().map(|w| f64::from(*w)).sum();
        let weighted = Matrix::from_fn(self.x.nrows(), self.x.ncols(), |i, j| {
            f64::from(self.weights[i]) / total * self.x[(i, j)]
        });
        (&self.x.transpose() * &weighted).symmetrised()
    }

    /// G = E^T R E.
    fn g(&self) -> Matrix {
        let right = &self.autocorrelation() * &self.error;
        (&self.error.transpose() * &right).symmetrised()
    }

    /// Columns of E, as a caller's closure gives them.
    fn columns(&self) -> impl FnMut(usize, &mut [f32]) + '_ {
        let m = self.error.nrows();
        move |first, columns| {
            for (at, to) in columns.iter_mut().enumerate() {
                *to = self.error[(at % m, first + at / m)] as f32;
            }
        }
    }

    /// The sketch of rows from `first` on, in blocks, with exactly the memory that is asked for.
    fn sketch(&self, l: usize, block: usize, first: usize, count: usize) -> Sketched {
        let mut rows = vec![f32::NAN; (l - 1) * self.n()];
        let totals = ErrorSketch::new(&mut rows, self.n()).unwrap().totals();
        let mut sketched = Sketched { rows, totals };
        sketched.go_on(self, block, first, count).unwrap();
        sketched
    }
}

/// A sketch at rest.
#[derive(Clone, Debug, PartialEq)]
struct Sketched {
    rows: Vec<f32>,
    totals: SketchTotals,
}

impl Sketched {
    fn go_on(
        &mut self,
        stream: &Stream,
        block: usize,
        first: usize,
        count: usize,
    ) -> Result<(), qera_core::statistics::SketchError> {
        let (m, n) = (stream.x.ncols(), stream.n());
        let mut sketch = ErrorSketch::resume(&mut self.rows, n, self.totals).unwrap();
        let (mut errors, mut columns) = (vec![0.0; block * n], vec![0.0; 3 * m]);
        let mut workspace = vec![0.0; error_sketch_workspace_len(sketch.kept(), block)];
        let values = stream.values(first, count);
        let rows = Rows::new(&values, m).unwrap();
        let rows = rows.weighted(&stream.weights[first..first + count]);
        let mut room = SketchRoom {
            errors: &mut errors,
            columns: &mut columns,
            workspace: &mut workspace,
        };
        let done = sketch.update(&rows.unwrap(), &mut stream.columns(), &mut room);
        self.totals = sketch.totals();
        done
    }

    fn merge(&mut self, other: &Self, n: usize) {
        let mut others = other.rows.clone();
        let other = ErrorSketch::resume(&mut others, n, other.totals).unwrap();
        let mut sketch = ErrorSketch::resume(&mut self.rows, n, self.totals).unwrap();
        let mut workspace = vec![0.0; error_sketch_workspace_len(sketch.kept(), other.kept())];
        sketch.merge(&other, &mut workspace).unwrap();
        self.totals = sketch.totals();
    }

    /// S^T S.
    fn moment(&self, n: usize) -> Matrix {
        let s = Matrix::from_fn(self.rows.len() / n, n, |i, j| {
            f64::from(self.rows[i * n + j])
        });
        (&s.transpose() * &s).symmetrised()
    }
}

/// Eigenvalues by the oracle, descending.
fn eigenvalues(a: &Matrix) -> Vec<f64> {
    let mut values = a
        .to_faer()
        .self_adjoint_eigenvalues(faer::Side::Lower)
        .unwrap();
    values.reverse();
    values
}
