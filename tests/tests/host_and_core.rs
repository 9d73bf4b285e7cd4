//! The daemon's routines (faer, f32 products, Krylov) and the core's (f64, lent memory) on the same
//! statistics: the same properties, and f equal to 1e-9.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a step that fails fails the test; weights are made f32"
)]

use qera_core::reconstruct::{
    Method, Problem, Report, Statistic, reconstruct, reconstruct_workspace_len,
};
use qera_core::statistics::BatchMaxMeanAbs;
use qera_daemon::{Compute, Cores, Kernel, SiteProblem, SiteStatistics, SolvedLayer};
use qera_tests::matrix::Matrix;
use qera_tests::precision::HOST_AND_CORE;
use qera_tests::quantization::quantized;
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::spectra::{Spectrum, packed, spectrum, symmetric, uniform};

const MODULE: &str = "layer.linear";

/// A layer and the statistics of its input, for both sides.
struct LayerOnBothSides {
    folder: tempfile::TempDir,
    weight: Matrix,
    /// R, packed.
    autocorrelation: Vec<f64>,
    statistics: SiteStatistics,
    rank: usize,
}

impl LayerOnBothSides {
    fn new(m: usize, n: usize, rank: usize, kind: Spectrum) -> Self {
        let r = symmetric(&spectrum(kind, m), 1 + m as u64);
        let autocorrelation = packed(&r);
        let mut statistics = SiteStatistics::from_autocorrelation(autocorrelation.clone(), m, 1000);
        for i in 0..m {
            statistics.mean_abs[i] = (0.6 * r[(i, i)].max(0.0)).sqrt();
            statistics.batch_max[i] = statistics.mean_abs[i] * (1.0 + 0.3 * (i % 3) as f64);
        }
        let folder = tempfile::tempdir().unwrap();
        let values: Vec<f32> = uniform(m, n, 7)
            .as_slice()
            .iter()
            .map(|x| *x as f32 * 0.1)
            .collect();
        let tensor = TensorToWrite::f32(&format!("{MODULE}.weight"), &[n, m], &values);
        write_safetensors(&folder.path().join("model.safetensors"), &[tensor], &[]);
        let weight = Matrix::from_columns(m, n, values.iter().map(|x| f64::from(*x)).collect());
        Self {
            folder,
            weight,
            autocorrelation,
            statistics,
            rank,
        }
    }

    fn host(&self, method: Method, shrinkage: f64) -> SolvedLayer {
        let cores = Cores::new(2);
        let compute = Compute::new(Kernel::best(), &cores);
        let (method, rank) = (method.name(), self.rank);
        let options = format!(
            "method = \"{method}\"\nquantizer = \"mxint3\"\nrank = {rank}\nshrinkage = \"{shrinkage}\"\ndtype = \"f32\"\n"
        );
        let problem = SiteProblem {
            checkpoint: self.folder.path(),
            options: &options,
            statistics: &self.statistics,
        };
        problem.solve(compute).unwrap().remove(0)
    }

    fn core(&self, method: Method, shrinkage: f64) -> Report {
        let (m, n) = (
            self.weight.nrows(),
            self.weight.as_slice().len() / self.weight.nrows(),
        );
        let narrow: Vec<f32> = self.weight.as_slice().iter().map(|x| *x as f32).collect();
        let quantized = quantized(&narrow, m, 3, 32);
        let error = self
            .weight
            .as_slice()
            .iter()
            .zip(&quantized)
            .map(|(w, q)| w - f64::from(*q))
            .collect();
        let error = Matrix::from_columns(m, n, error);
        let mut scale = self.statistics.mean_abs.clone();
        if method == Method::Lqer {
            let mut batch_max = self.statistics.batch_max.clone();
            BatchMaxMeanAbs::resume(&mut batch_max, 1000.0)
                .unwrap()
                .finish_scale(&mut scale)
                .unwrap();
        }
        let problem = Problem::new(
            error.view(),
            Statistic::Autocorrelation(&self.autocorrelation),
            self.rank,
        )
        .and_then(|p| p.with_weight(self.weight.view()))
        .and_then(|p| p.with_shrinkage(shrinkage))
        .and_then(|p| p.with_scale(&scale))
        .unwrap();
        let (mut a, mut b) = (Matrix::zeros(m, self.rank), Matrix::zeros(self.rank, n));
        let mut workspace = vec![0.0; reconstruct_workspace_len(m, n, self.rank)];
        reconstruct(
            method,
            &problem,
            a.view_mut(),
            b.view_mut(),
            &mut [],
            &mut workspace,
        )
        .unwrap()
    }

    fn compare(&self, method: Method, shrinkage: f64, name: &str) {
        let host = self.host(method, shrinkage);
        let core = self.core(method, shrinkage);
        let close = |what: &str, ours: f64, theirs: f64| {
            // Differences of traces carry the rounding of the traces themselves.
            let allowed = HOST_AND_CORE * theirs.abs() + 1e-14 * core.error_without;
            assert!(
                (ours - theirs).abs() <= allowed,
                "{name} {method}: {what} {ours} {theirs}"
            );
        };
        close("error_without", host.error_without, core.error_without);
        close("error_with", host.error_with, core.error_with);
        // What errors are relative to is summed of f32 products.
        let power = host.output_power / core.output_power - 1.0;
        assert!(power.abs() < 1e-6, "{name} {method}: output_power {power}");
        assert!(
            host.error_with <= host.error_without * (1.0 + 1e-12),
            "{name} {method}: never worse"
        );
        if method == Method::Exact && shrinkage <= 0.0 {
            close(
                "captured",
                host.spectrum.iter().sum(),
                core.error_without - core.error_with,
            );
        }
        assert!(
            host.spectrum.windows(2).all(|w| w[0] >= w[1]),
            "{name}: largest first"
        );
        let lora = host.lora_a.iter().chain(&host.lora_b);
        assert!(lora.clone().all(|x| x.is_finite()));
        self.balanced(&host, name);
    }

    /// Columns of B are orthogonal, and each pair of A and B has equal norms.
    fn balanced(&self, host: &SolvedLayer, name: &str) {
        let (m, k) = (self.weight.nrows(), host.rank_used);
        let norm = |values: &mut dyn Iterator<Item = f32>| {
            values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
        };
        for i in 0..k {
            let a = norm(&mut host.lora_a[i * m..(i + 1) * m].iter().copied());
            let b = norm(&mut host.lora_b.iter().skip(i).step_by(k).copied());
            assert!(
                (a / b - 1.0).abs() < 1e-5,
                "{name}: column {i} has norms {a} and {b}"
            );
            for j in 0..i {
                let columns = host
                    .lora_b
                    .chunks(k)
                    .map(|row| f64::from(row[i]) * f64::from(row[j]));
                let other = norm(&mut host.lora_b.iter().skip(j).step_by(k).copied());
                assert!(
                    columns.sum::<f64>().abs() < 1e-5 * b * other,
                    "{name}: columns {i} and {j}"
                );
            }
        }
    }
}

#[test]
fn every_spectrum_dense() {
    for kind in Spectrum::SEMI_DEFINITE {
        for (m, n, rank) in [(40, 24, 5), (24, 56, 8), (33, 64, 1)] {
            LayerOnBothSides::new(m, n, rank, kind).compare(
                Method::Exact,
                0.0,
                &format!("{kind:?} {m}x{n}"),
            );
        }
    }
}

/// Wide enough for the Krylov route of the host.
#[test]
fn every_spectrum_by_krylov() {
    for kind in Spectrum::SEMI_DEFINITE {
        LayerOnBothSides::new(96, 640, 12, kind).compare(
            Method::Exact,
            0.0,
            &format!("{kind:?} krylov"),
        );
    }
}

#[test]
fn every_method_and_shrinkage() {
    let case = LayerOnBothSides::new(48, 40, 6, Spectrum::PowerLaw);
    for method in Method::ALL {
        case.compare(method, 0.0, "power law");
    }
    for shrinkage in [0.05, 0.3, 1.0] {
        case.compare(Method::Exact, shrinkage, "shrunk");
    }
}

#[test]
fn a_rank_that_does_not_exist_is_cut_alike() {
    let mut case = LayerOnBothSides::new(16, 40, 16, Spectrum::RankDeficient);
    case.rank = 16;
    let (host, core) = (case.host(Method::Exact, 0.0), case.core(Method::Exact, 0.0));
    assert_eq!(host.rank_used, core.rank_used);
    assert!(host.rank_used < 16 && host.error_with <= 1e-12 * host.error_without);
}

/// Problems without rows, or of layers that read several inputs, are refused and not guessed at.
#[test]
fn what_is_no_problem_of_one_site_is_refused() {
    let case = LayerOnBothSides::new(16, 8, 2, Spectrum::PowerLaw);
    let cores = Cores::new(1);
    let compute = Compute::new(Kernel::best(), &cores);
    let refused = |statistics: &SiteStatistics| {
        let problem = SiteProblem {
            checkpoint: case.folder.path(),
            options: "method = \"exact\"\nquantizer = \"mxint3\"\nrank = 2\n",
            statistics,
        };
        problem.solve(compute).unwrap_err().to_string()
    };
    assert_eq!(refused(&SiteStatistics::whole(16)), "no row has been seen");
    let values = vec![0.5; 16 * 8];
    let tensors = [("layer.one", [8, 16]), ("layer.two", [16, 8])]
        .map(|(name, shape)| TensorToWrite::f32(&format!("{name}.weight"), &shape, &values));
    write_safetensors(&case.folder.path().join("model.safetensors"), &tensors, &[]);
    let said = refused(&case.statistics);
    assert!(said.contains("cannot share an input"), "{said}");
}
