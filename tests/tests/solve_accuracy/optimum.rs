//! R, E and the optimum of a layer, by dense eigenvectors in f64.

use faer::{Mat, MatRef, Side};
use qera_daemon::{Compute, Cores, Kernel, LayerProblem, LowRankTerm};
use qera_tests::layer_input::{Input, Population};
use qera_tests::matrix::Matrix;
use qera_tests::quantization::quantization_error;
use qera_tests::spectra::{packed, uniform};

/// Share of the older R after a warm step.
const OLDER: f64 = 0.95;

/// E of a weight that was quantized to 3 bits: rows of different size, m x n by columns.
pub(crate) fn error_of_three_bits(m: usize, n: usize) -> Vec<f32> {
    let random = uniform(m, n, 17);
    let weight: Vec<f32> = (0..n)
        .flat_map(|j| (0..m).map(move |i| (i, j)))
        .map(|(i, j)| {
            let size = 0.02 * (1.0 + (j % 7) as f64) * (1.0 + 0.1 * (i % 5) as f64);
            (size * random[(i, j)]) as f32
        })
        .collect();
    quantization_error(&weight, m, 3, 32)
}

/// E of rank k but for noise, whose size is this share of the rest.
pub(crate) fn nearly_low_rank(m: usize, n: usize, k: usize, share: f64) -> Vec<f32> {
    let low_rank = &uniform(m, k, 21) * &uniform(k, n, 22);
    let noise = uniform(m, n, 23);
    let size = (k as f64).sqrt() * share;
    let entry = |(l, x): (&f64, &f64)| (0.01 * (l + size * x)) as f32;
    let pairs = low_rank.as_slice().iter().zip(noise.as_slice());
    pairs.map(entry).collect()
}

/// R, E and the optimum for every rank.
pub(crate) struct LayerOptimum {
    pub(crate) name: String,
    m: usize,
    r: Mat<f64>,
    packed: Vec<f64>,
    values: Vec<f32>,
    error: Mat<f64>,
    /// Eigenvectors of G, the largest first.
    vectors: Mat<f64>,
    pub(crate) eigenvalues: Vec<f64>,
}

impl LayerOptimum {
    pub(crate) fn new(name: String, r: Mat<f64>, values: Vec<f32>) -> Self {
        let (m, n) = (r.nrows(), values.len() / r.nrows());
        let error = Mat::from_fn(m, n, |i, j| f64::from(values[j * m + i]));
        let g = error.transpose() * (&r * &error);
        let g = Mat::from_fn(n, n, |i, j| 0.5 * (g[(i, j)] + g[(j, i)]));
        let eigen = g.self_adjoint_eigen(Side::Lower).unwrap();
        let eigenvalues = (0..n).rev().map(|i| eigen.S()[i]).collect();
        Self {
            name,
            m,
            packed: packed(&Matrix::from_faer(r.as_ref())),
            r,
            values,
            error,
            vectors: eigen.U().reverse_cols().to_owned(),
            eigenvalues,
        }
    }

    /// tr(R P P^T) from P = E - A B itself.
    fn objective(&self, a: MatRef<'_, f64>, b_transposed: MatRef<'_, f64>) -> f64 {
        let p = &self.error - a * b_transposed.transpose();
        let rp = &self.r * &p;
        let columns = p.col_iter().zip(rp.col_iter());
        columns.map(|(p, rp)| p.transpose() * rp).sum()
    }

    /// The least f of rank k. By the eigenvectors, not as a difference of traces: their own error
    /// only counts squared, so that it is exact to what f64 shows of f itself.
    pub(crate) fn optimum(&self, k: usize) -> f64 {
        let v = self.vectors.subcols(0, k);
        let f = self.objective((&self.error * v).as_ref(), v);
        let trace: f64 = self.eigenvalues.iter().sum();
        let captured: f64 = self.eigenvalues[..k].iter().sum();
        assert!(
            (f - (trace - captured)).abs() <= 1e-12 * trace,
            "{}",
            self.name
        );
        f
    }

    pub(crate) fn without(&self) -> f64 {
        self.eigenvalues.iter().sum()
    }

    pub(crate) fn solve(
        &self,
        kernel: Kernel,
        threads: usize,
        rank: usize,
        warm: Option<MatRef<'_, f64>>,
    ) -> LowRankTerm {
        let problem = LayerProblem {
            autocorrelation: &self.packed,
            error: &self.values,
            in_features: self.m,
            rank,
        };
        let cores = Cores::new(threads);
        let _core = cores.take();
        let host = Compute::new(kernel, &cores);
        problem.solve(host, warm).unwrap()
    }

    pub(crate) fn excess(&self, term: &LowRankTerm, optimum: f64) -> f64 {
        self.objective(term.a.as_ref(), term.b_transposed.as_ref()) / optimum - 1.0
    }

    pub(crate) fn same_bytes(&self, rank: usize, term: &LowRankTerm, kernel: Kernel) {
        let other = self.solve(kernel, 2, rank, None);
        let same = term.a == other.a && term.b_transposed == other.b_transposed;
        assert!(same, "{} {}: bytes and cores", self.name, kernel.name());
    }

    /// The eigenvalues that the term says it captured are those of G.
    pub(crate) fn captured(&self, term: &LowRankTerm, name: &str) {
        let captured: f64 = term.captured.iter().sum();
        let expected: f64 = self.eigenvalues[..term.captured.len()].iter().sum();
        assert!((captured / expected - 1.0).abs() < 1e-6, "{name}: captured");
        assert!(term.captured.is_sorted_by(|a, b| a >= b), "{name}: order");
    }
}

/// The R of a stream and of the same stream a little later, with one E.
pub(crate) struct MovingStatistics {
    pub(crate) before: LayerOptimum,
    pub(crate) after: LayerOptimum,
}

impl MovingStatistics {
    pub(crate) fn new(name: &str, m: usize, input: Input, values: &[f32]) -> Self {
        let population = Population::new(input, m);
        let before = population.autocorrelation(input.rows(m), 31);
        let rows = population.autocorrelation(input.rows(m) / 4, 41);
        let after = Mat::from_fn(m, m, |i, j| {
            OLDER * before[(i, j)] + (1.0 - OLDER) * rows[(i, j)]
        });
        let name = format!("{name} {input:?}");
        Self {
            before: LayerOptimum::new(name.clone(), before, values.to_vec()),
            after: LayerOptimum::new(name, after, values.to_vec()),
        }
    }
}
