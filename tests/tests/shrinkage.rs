//! The choice of the shrinkage and what it reports of held-out rows, against an oracle that solves every fold densely in
//! f64 from the other rows alone.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a step that fails fails the test; rows and weights are made f32"
)]

use faer::{Mat, Side};
use qera_core::dtype::FloatDtype;
use qera_core::quantize::Mxint;
use qera_daemon::{
    Batch, ChoiceOrigin, Compute, Cores, HeldOut, Kernel, Options, SHRINKAGES, Scratch, Settings,
    Shares, SiteSolver, SiteStatistics, Sites, Weights,
};
use qera_tests::layer_input::{Input, Population};
use qera_tests::precision::HELD_OUT;
use qera_tests::shards::{TensorToWrite, write};
use qera_tests::spectra::uniform;

/// Rows of a sequence, which is a block.
const SEQUENCE: usize = 64;
/// Two layers on one site.
const NAMES: [&str; 2] = [
    "model.layers.0.self_attn.q_proj",
    "model.layers.0.self_attn.k_proj",
];

/// A site whose rows are known.
struct Case {
    folder: tempfile::TempDir,
    m: usize,
    rank: usize,
    /// Row-major.
    rows: Vec<f32>,
    /// m x n.
    weights: Vec<Vec<f32>>,
}

/// Held-out errors of one layer.
struct Scored {
    with: Vec<f64>,
    without: Vec<f64>,
}

impl Case {
    /// Sequences whose rows resemble each other, and a layer for each of `outputs`.
    fn new(m: usize, outputs: &[usize], rank: usize, sequences: usize) -> Self {
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
        write(&folder.path().join("model.safetensors"), &tensors, &[]);
        Self {
            rows: rows.collect(),
            folder,
            m,
            rank,
            weights,
        }
    }

    fn settings(&self, shrinkage: &str) -> Settings {
        Settings::resolve(&Options {
            checkpoint: Some(self.folder.path().into()),
            method: Some("exact".into()),
            quantizer: Some("mxint3".into()),
            rank: u32::try_from(self.rank).ok(),
            shrinkage: Some(shrinkage.into()),
            dtype: Some("f32".into()),
            ..Options::defaults()
        })
        .unwrap()
    }

    /// What the daemon chooses and reports, by layer; and which sequences its window holds.
    fn found(
        &self,
        kernel: Kernel,
        shrinkage: &str,
    ) -> (f64, ChoiceOrigin, Vec<HeldOut>, Vec<usize>) {
        let settings = self.settings(shrinkage);
        let weights = Weights::open(&settings).unwrap().unwrap();
        let sites = Sites::group(weights.layers(), &Shares::default()).unwrap();
        assert_eq!(sites.sites.len(), 1);
        let cores = Cores::new(2);
        let _core = cores.take();
        let host = Compute {
            kernel,
            cores: &cores,
        };
        let mut statistics = SiteStatistics::new(self.m);
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
            batches: vec![SEQUENCE; self.rows.len() / self.m / SEQUENCE],
            sequences: true,
        };
        statistics
            .fold(&shard, host, &mut Scratch::default())
            .unwrap();
        let solver = SiteSolver {
            host,
            weights: &weights,
            settings: &settings,
        };
        let solutions = solver.solve(&sites.sites[0], &statistics, None).unwrap();
        let choice = solutions[0].choice.unwrap();
        let held_out = NAMES[..self.weights.len()].iter().map(|name| {
            let of_layer = solutions
                .iter()
                .find(|s| weights.layers()[s.layer].name == *name);
            of_layer.unwrap().held_out.unwrap()
        });
        let blocks = statistics.window.blocks();
        let kept = blocks.iter().map(|b| usize::try_from(b.number).unwrap());
        (
            choice.shrinkage,
            choice.origin,
            held_out.collect(),
            kept.collect(),
        )
    }

    fn error(&self, layer: usize) -> Mat<f64> {
        let weight = &self.weights[layer];
        let mut quantized = vec![0.0; weight.len()];
        Mxint::new(3, 32)
            .unwrap()
            .quantize_dequantize(weight, self.m, &mut quantized)
            .unwrap();
        Mat::from_fn(self.m, weight.len() / self.m, |i, j| {
            let at = j * self.m + i;
            f64::from(weight[at]) - f64::from(quantized[at])
        })
    }

    /// m x rows: the rows of some sequences, every `step`-th of them, from the middle of the first step.
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
    fn oracle(&self, layer: usize, a: f64, folds: &[&[usize]], step: usize) -> Scored {
        let error = self.error(layer);
        let all: Vec<usize> = (0..self.rows.len() / self.m / SEQUENCE).collect();
        let mut scored = Scored {
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

    fn oracles(&self, a: f64, folds: &[&[usize]], step: usize) -> Vec<Scored> {
        let layers = 0..self.weights.len();
        layers.map(|l| self.oracle(l, a, folds, step)).collect()
    }

    /// A fixed shrinkage: the held-out means are the oracle's.
    fn fixed(&self, folds: &[&[usize]], step: usize) {
        for kernel in Kernel::available() {
            for shrinkage in ["0", "0.3", "1"] {
                let (a, origin, held_out, _) = self.found(kernel, shrinkage);
                assert_eq!(origin, ChoiceOrigin::Given);
                for (found, oracle) in held_out.iter().zip(self.oracles(a, folds, step)) {
                    same(&format!("a = {a}, {}", kernel.name()), found, &oracle);
                }
            }
        }
    }

    /// The shrinkage is chosen as the oracle's means say.
    fn chosen(&self, folds: &[&[usize]], step: usize) {
        let all: Vec<Vec<Scored>> = SHRINKAGES
            .iter()
            .map(|a| self.oracles(*a, folds, step))
            .collect();
        let expected = one_standard_error(&all);
        for kernel in Kernel::available() {
            let (a, origin, held_out, _) = self.found(kernel, "auto");
            assert_eq!(origin, ChoiceOrigin::HeldOut);
            assert!(
                (a - SHRINKAGES[expected]).abs() < 1e-9,
                "{}: {a} is not {}",
                kernel.name(),
                SHRINKAGES[expected]
            );
            for (found, oracle) in held_out.iter().zip(&all[expected]) {
                same(&format!("auto, {}", kernel.name()), found, oracle);
            }
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn same(name: &str, found: &HeldOut, oracle: &Scored) {
    let (with, without) = (mean(&oracle.with), mean(&oracle.without));
    assert_eq!(found.blocks as usize, oracle.with.len());
    let error = (found.mean / with - 1.0).abs();
    assert!(error <= HELD_OUT, "{name}: {} is not {with}", found.mean);
    assert!(
        (found.mean_without / without - 1.0).abs() <= 1e-6,
        "{name}: {} without is not {without}",
        found.mean_without
    );
}

/// The largest candidate whose mean over blocks, relative to no correction and over the layers, is within one standard
/// error of the best. The example must be clear: none may be near the limit.
fn one_standard_error(all: &[Vec<Scored>]) -> usize {
    let blocks = all[0][0].with.len();
    let relative: Vec<Vec<f64>> = all
        .iter()
        .map(|layers| {
            let ratios = |b: usize| layers.iter().map(move |l| l.with[b] / l.without[b]);
            (0..blocks)
                .map(|b| ratios(b).sum::<f64>() / layers.len() as f64)
                .collect()
        })
        .collect();
    let means: Vec<f64> = relative.iter().map(|values| mean(values)).collect();
    let best = (0..means.len())
        .min_by(|i, j| means[*i].total_cmp(&means[*j]))
        .unwrap();
    let squares = relative[best].iter().map(|x| (x - means[best]).powi(2));
    let variance = squares.sum::<f64>() / (blocks - 1) as f64;
    let limit = means[best] + (variance / blocks as f64).sqrt();
    for mean in &means {
        assert!((mean / limit - 1.0).abs() > HELD_OUT, "{means:?} {limit}");
    }
    means.iter().rposition(|mean| *mean <= limit).unwrap()
}

/// Eight sequences, all of them in the window: four folds of two, every row scored.
const FOLDS: [&[usize]; 4] = [&[0, 1], &[2, 3], &[4, 5], &[6, 7]];

/// Small n: the candidates are compared in the whole space.
#[test]
fn a_fixed_shrinkage_in_the_whole_space() {
    Case::new(96, &[150], 8, 8).fixed(&FOLDS, 1);
}

#[test]
fn a_fixed_shrinkage_in_a_krylov_space() {
    Case::new(200, &[300], 8, 8).fixed(&FOLDS, 1);
    Case::new(120, &[200, 310], 20, 8).fixed(&FOLDS, 1);
}

#[test]
fn auto_in_the_whole_space() {
    Case::new(150, &[130], 8, 8).chosen(&FOLDS, 1);
    Case::new(180, &[140, 120], 12, 8).chosen(&FOLDS, 1);
}

#[test]
fn auto_in_a_krylov_space() {
    Case::new(200, &[300], 8, 8).chosen(&FOLDS, 1);
    Case::new(320, &[200, 290], 8, 8).chosen(&FOLDS, 1);
}

/// The window is less than a quarter of the rows: one fold, of whose blocks eight rows are scored.
#[test]
fn a_long_stream_is_one_fold() {
    let case = Case::new(40, &[48, 44], 4, 260);
    let (_, _, held_out, kept) = case.found(Kernel::best(), "0");
    assert_eq!(kept.len() * SEQUENCE, 4096);
    assert_eq!(held_out[0].rows_tested, 512);
    assert_eq!(held_out[0].rows_solved, 260 * 64 - 4096);
    case.fixed(&[&kept], 8);
    case.chosen(&[&kept], 8);
}
