//! A site whose rows are known: what the daemon finds on it, and the oracle.

use faer::{Mat, Side};
use qera_core::dtype::FloatDtype;
use qera_daemon::{
    Batch, ChoiceOrigin, Compute, Cores, HeldOut, Kernel, Scratch, SiteProblem, SiteStatistics,
};
use qera_tests::layer_input::{Input, Population};
use qera_tests::quantization::quantized;
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::spectra::uniform;

/// Rows of a sequence, which is a block.
pub(crate) const SEQUENCE: usize = 64;
/// Two layers on one site.
const NAMES: [&str; 2] = [
    "model.layers.0.self_attn.q_proj",
    "model.layers.0.self_attn.k_proj",
];

/// A site whose rows are known.
pub(crate) struct KnownSite {
    folder: tempfile::TempDir,
    m: usize,
    rank: usize,
    /// Row-major.
    rows: Vec<f32>,
    /// m x n.
    weights: Vec<Vec<f32>>,
}

/// Held-out errors of one layer.
pub(crate) struct OracleErrors {
    pub(crate) with: Vec<f64>,
    pub(crate) without: Vec<f64>,
}

/// What the daemon chooses and reports.
pub(crate) struct FoundChoice {
    pub(crate) shrinkage: f64,
    pub(crate) origin: ChoiceOrigin,
    /// By layer.
    pub(crate) held_out: Vec<HeldOut>,
    /// Sequences that its window holds.
    pub(crate) kept: Vec<usize>,
}

impl KnownSite {
    /// Sequences whose rows resemble each other, and a layer for each of `outputs`.
    pub(crate) fn new(m: usize, outputs: &[usize], rank: usize, sequences: usize) -> Self {
        let count = sequences * SEQUENCE;
        let own = Population::new(Input::Natural, m).rows(count, 5);
        let common = Population::new(Input::Natural, m).rows(sequences, 77);
        let rows = (0..count)
            .flat_map(|row| (0..m).map(move |channel| (channel, row)))
            .map(|(channel, row)| {
                (own[(channel, row)] + 0.7 * common[(channel, row / SEQUENCE)]) as f32
            });
        let folder = tempfile::tempdir().unwrap();
        let mut weights = Vec::new();
        let mut tensors = Vec::new();
        for ((&n, name), seed) in outputs.iter().zip(NAMES).zip(1..) {
            let weight = uniform(m, n, seed);
            let weight: Vec<f32> = weight.as_slice().iter().map(|x| *x as f32 * 0.1).collect();
            tensors.push(TensorToWrite::f32(
                &format!("{name}.weight"),
                &[n, m],
                &weight,
            ));
            weights.push(weight);
        }
        write_safetensors(&folder.path().join("model.safetensors"), &tensors, &[]);
        Self {
            rows: rows.collect(),
            folder,
            m,
            rank,
            weights,
        }
    }

    fn statistics(&self, compute: Compute<'_>) -> SiteStatistics {
        let mut statistics = SiteStatistics::whole(self.m);
        let shard = Batch {
            site: 0,
            in_features: self.m,
            bytes: self
                .rows
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect::<Vec<_>>()
                .into(),
            dtype: FloatDtype::F32,
            weights: None,
            batches: vec![SEQUENCE; self.rows.len() / self.m / SEQUENCE],
            sequences: true,
        };
        statistics
            .fold(&shard, compute, &mut Scratch::default())
            .unwrap();
        statistics
    }

    /// What the daemon makes of the site.
    pub(crate) fn found(&self, kernel: Kernel, shrinkage: &str) -> FoundChoice {
        let cores = Cores::new(2);
        let _core = cores.take();
        let compute = Compute::new(kernel, &cores);
        let statistics = self.statistics(compute);
        let options = format!(
            "method = \"exact\"\nquantizer = \"mxint3\"\nrank = {}\nshrinkage = \"{shrinkage}\"\ndtype = \"f32\"\n",
            self.rank
        );
        let problem = SiteProblem {
            checkpoint: self.folder.path(),
            options: &options,
            statistics: &statistics,
        };
        let solved = problem.solve(compute).unwrap();
        let choice = solved[0].choice.unwrap();
        let held_out = NAMES[..self.weights.len()].iter().map(|name| {
            let of_layer = solved.iter().find(|layer| layer.name == *name);
            of_layer.unwrap().held_out.unwrap()
        });
        let blocks = statistics.held_out_blocks();
        let kept = blocks
            .iter()
            .map(|number| usize::try_from(*number).unwrap());
        FoundChoice {
            shrinkage: choice.shrinkage,
            origin: choice.origin,
            held_out: held_out.collect(),
            kept: kept.collect(),
        }
    }

    fn error(&self, layer: usize) -> Mat<f64> {
        let weight = &self.weights[layer];
        let quantized = quantized(weight, self.m, 3, 32);
        Mat::from_fn(self.m, weight.len() / self.m, |i, j| {
            let at = j * self.m + i;
            f64::from(weight[at]) - f64::from(quantized[at])
        })
    }

    /// m x rows: the rows of some sequences, every `step`-th of them, from the middle of the first
    /// step.
    fn columns(&self, sequences: &[usize], step: usize) -> Mat<f64> {
        let rows: Vec<usize> = sequences
            .iter()
            .flat_map(|s| (0..SEQUENCE).map(move |row| s * SEQUENCE + row))
            .filter(|row| row % step == step / 2)
            .collect();
        Mat::from_fn(self.m, rows.len(), |i, j| {
            f64::from(self.rows[rows[j] * self.m + i])
        })
    }

    /// Each fold solved from all sequences but its own, and scored on these.
    fn oracle(&self, layer: usize, a: f64, folds: &[&[usize]], step: usize) -> OracleErrors {
        let error = self.error(layer);
        let all: Vec<usize> = (0..self.rows.len() / self.m / SEQUENCE).collect();
        let mut scored = OracleErrors {
            with: Vec::new(),
            without: Vec::new(),
        };
        for fold in folds {
            let others: Vec<usize> = all.iter().copied().filter(|s| !fold.contains(s)).collect();
            let x = self.columns(&others, 1);
            let r = &x * x.transpose() * faer::Scale(1.0 / x.ncols() as f64);
            let s = Mat::from_fn(self.m, self.m, |i, j| {
                if i == j {
                    r[(i, j)]
                } else {
                    (1.0 - a) * r[(i, j)]
                }
            });
            let g = error.transpose() * (&s * &error);
            let eigen = g.self_adjoint_eigen(Side::Lower).unwrap();
            let v = eigen.U().reverse_cols().subcols(0, self.rank);
            for sequence in *fold {
                let x = self.columns(&[*sequence], step);
                let y = x.transpose() * &error;
                let left = &y - (&y * v) * v.transpose();
                let rows = x.ncols() as f64;
                scored.with.push(left.squared_norm_l2() / rows);
                scored.without.push(y.squared_norm_l2() / rows);
            }
        }
        scored
    }

    pub(crate) fn oracles(&self, a: f64, folds: &[&[usize]], step: usize) -> Vec<OracleErrors> {
        let layers = 0..self.weights.len();
        layers.map(|l| self.oracle(l, a, folds, step)).collect()
    }
}
