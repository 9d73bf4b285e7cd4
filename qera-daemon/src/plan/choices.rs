//! What each choice of `--statistics` takes and is expected to cost. `plan` shows it, and the user
//! chooses.

use core::time::Duration;

use faer::Mat;
use serde::Serialize;

use crate::disk::clock;
use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::cores::Cores;
use crate::host::kernels::Kernel;
use crate::host::output_sketch::{OutputSketch, SKETCH_ROWS};
use crate::host::second_moment::SecondMomentKind;
use crate::host::subspace::small_top::top_eigen;
use crate::settings::Settings;
use crate::settings::memory_budget::format_bytes;
use crate::settings::statistics::{Statistics, default_rows};
use crate::weights::Weights;
use crate::weights::sites::{Site, Sites};
use crate::weights::sketched::SketchRecord;

/// How many columns the matrix has that a trial multiplies by.
const TRIAL_WIDTH: usize = 768;
/// How many trials are made; the fastest counts.
const TRIALS: usize = 3;

/// One choice of `--statistics` with its figures.
#[derive(Debug, Serialize)]
pub(crate) struct StatisticsChoice {
    /// The choice as `--statistics` takes it.
    pub(crate) statistics: String,
    /// How many inputs are sketched.
    pub(crate) sketched: usize,
    /// Bytes of the statistics of all inputs, with the rows that wait to be sketched.
    pub(crate) bytes: u64,
    /// Bytes of weights that are read for one token of every input.
    pub(crate) weight_bytes_a_token: u64,
    /// Operations for one token of every input.
    pub(crate) flops_a_token: f64,
    /// Seconds for one token of every input on one core, from a short trial on this machine.
    pub(crate) seconds_a_token: f64,
    /// How far the remaining error is above the smallest possible, as measured on real layers.
    pub(crate) expected_excess: &'static str,
}

/// How fast this machine is, on one core.
struct SpeedTrial {
    /// Operations a second of products in f32.
    products: f64,
    /// The time of an eigenproblem of a sketch of a wide layer.
    eigen: Duration,
}

/// The figures of all choices for the layers of a model.
#[must_use]
pub(crate) fn choices(
    settings: &Settings,
    weights: &Weights,
    sites: &Sites,
) -> Vec<StatisticsChoice> {
    let rank = settings.weights.ranks.largest();
    let rows = match settings.solve.statistics {
        Some(Statistics::Sketch { rows }) => rows,
        _ => default_rows(rank),
    };
    let record = SketchRecord::new(rows, weights);
    let sketched = sites.clone().sketched(record, weights.layers());
    let trial = SpeedTrial::new(settings.compute.kernel, rows);
    let of = |statistics: Statistics, sites: &[Site], excess| {
        let choice = |site: &Site| trial.of(site, statistics);
        let parts: Vec<ChoicePart> = sites.iter().map(choice).collect();
        StatisticsChoice {
            statistics: statistics.to_string(),
            sketched: parts.iter().filter(|part| part.weight_bytes > 0).count(),
            bytes: parts.iter().map(|part| part.bytes).sum(),
            weight_bytes_a_token: parts.iter().map(|part| part.weight_bytes).sum(),
            flops_a_token: parts.iter().map(|part| part.flops).sum(),
            seconds_a_token: parts.iter().map(|part| part.seconds).sum(),
            expected_excess: excess,
        }
    };
    vec![
        of(Statistics::Full, &sketched.sites, "0"),
        of(
            Statistics::Sketch { rows },
            &sketched.sites,
            expected_excess(rows, rank),
        ),
        of(Statistics::Diagonal, &sketched.sites, "38 to 77 %"),
    ]
}

/// The excess that was measured on two real layers at rank 32 (docs/sketch.md), by the ratio of l
/// to the rank.
const fn expected_excess(rows: usize, rank: usize) -> &'static str {
    match rows / if rank > 0 { rank } else { 1 } {
        0 | 1 => "up to 25 %",
        2 | 3 => "up to 6 %",
        4..8 => "up to 0.5 %",
        _ => "up to 0.02 %",
    }
}

/// The figures of one input.
struct ChoicePart {
    bytes: u64,
    weight_bytes: u64,
    flops: f64,
    seconds: f64,
}

impl SpeedTrial {
    /// Times a few products and the eigenproblem of a sketch of l rows.
    fn new(kernel: Kernel, rows: usize) -> Self {
        let cores = Cores::new(1);
        let _core = cores.take();
        let compute = Compute::new(kernel, &cores);
        let number = |i: usize| ((i % 251) as f32 - 125.0) / 125.0;
        let values: Vec<f32> = (0..TRIAL_WIDTH * TRIAL_WIDTH).map(number).collect();
        let operand = compute.operand(ColumnMajor::new(&values, TRIAL_WIDTH));
        let x = Mat::from_fn(SKETCH_ROWS, TRIAL_WIDTH, |i, j| {
            f64::from(number(7 * i + j))
        });
        let fastest = |work: &dyn Fn()| {
            let trials = (0..TRIALS).map(|_| {
                let begun = clock::now();
                work();
                clock::since(begun)
            });
            trials.min().unwrap_or_default()
        };
        let product = fastest(&|| drop(operand.times(x.as_ref())));
        let flops = (2 * TRIAL_WIDTH * TRIAL_WIDTH * SKETCH_ROWS) as f64;
        let stack = rows - 1 + SKETCH_ROWS;
        let gram = Mat::from_fn(stack, stack, |i, j| 1.0 / (1.0 + i.abs_diff(j) as f64));
        Self {
            products: flops / product.as_secs_f64().max(1e-9),
            eigen: fastest(&|| drop(top_eigen(&gram, rows))),
        }
    }

    fn of(&self, site: &Site, statistics: Statistics) -> ChoicePart {
        let m = site.in_features;
        let own = |kind: SecondMomentKind| kind.bytes(m) + 8 * 3 * m as u64;
        let diagonal = own(SecondMomentKind::Diagonal);
        let full = || ChoicePart {
            bytes: own(SecondMomentKind::Packed),
            weight_bytes: 0,
            flops: (m * m) as f64,
            seconds: (m * m) as f64 / self.products,
        };
        match (statistics, &site.sketch) {
            (Statistics::Diagonal, _) => ChoicePart {
                bytes: diagonal,
                weight_bytes: 0,
                flops: 0.0,
                seconds: 0.0,
            },
            (Statistics::Full, _) | (Statistics::Sketch { .. }, None) => full(),
            (Statistics::Sketch { .. }, Some(sketch)) => {
                let widths = || sketch.layers.iter().map(|layer| layer.out_features);
                let seconds = |n| {
                    let products = OutputSketch::product_flops(m, n, sketch.kept);
                    let size = OutputSketch::eigen_size(n, sketch.kept) as f64;
                    let part = (size / (sketch.kept + SKETCH_ROWS) as f64).powi(3);
                    products / self.products + part * self.eigen.as_secs_f64() / SKETCH_ROWS as f64
                };
                ChoicePart {
                    bytes: diagonal + sketch.bytes(m, size_of::<f32>()),
                    weight_bytes: widths().map(|n| (2 * m * n / SKETCH_ROWS) as u64).sum(),
                    flops: sketch.row_flops(m),
                    seconds: widths().map(seconds).sum(),
                }
            }
        }
    }
}

impl StatisticsChoice {
    /// The heading of the table.
    pub(crate) fn heading() -> String {
        format!(
            "{:<16} {:>8} {:>12} {:>16} {:>13} {:>12} {:>16}",
            "--statistics",
            "sketched",
            "memory",
            "weights a token",
            "MFlop a token",
            "us a token",
            "expected excess"
        )
    }

    /// The choice as a row of the table.
    pub(crate) fn row(&self) -> String {
        format!(
            "{:<16} {:>8} {:>12} {:>16} {:>13.2} {:>12.1} {:>16}",
            self.statistics,
            self.sketched,
            format_bytes(self.bytes),
            format_bytes(self.weight_bytes_a_token),
            self.flops_a_token / 1e6,
            self.seconds_a_token * 1e6,
            self.expected_excess
        )
    }
}
