//! What W~ costs: a square layer of 3 bits solved from its statistics at rank 32, W~ rounded to
//! nearest, with feedback, and for the adapter; CPU seconds of the process on one core, by the
//! fastest kernel that runs here. What the last two take beyond the first is rounding.
//!
//! `cargo bench -p qera-benches --bench rounding [-- SIDE...]`: 1024, 2048 and 4096 unless others
//! are given; 4096 takes about two minutes and half a GiB.
#![expect(clippy::print_stdout, reason = "the table is what a bench is for")]

use core::error::Error;
use std::path::{Path, PathBuf};

use qera_benches::cpu_time::seconds_of;
use qera_benches::data::{Noise, activations, stored_as};
use qera_benches::samples::Samples;
use qera_core::dtype::FloatDtype;
use qera_daemon::{Batch, Compute, Cores, Kernel, Scratch, SiteProblem, SiteStatistics};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

const ROUNDINGS: [&str; 3] = ["nearest", "feedback", "projected"];
const SIDES: [usize; 3] = [1024, 2048, 4096];
const ROUNDS: usize = 3;
/// Rows of the statistics, in sequences, of which every fourth is kept for judging.
const ROWS: usize = 4096;
const SEQUENCES: usize = 8;

/// A checkpoint of one layer, which is removed with its folder.
struct OneLayer(PathBuf);

impl OneLayer {
    fn new(side: usize) -> Result<Self, Box<dyn Error>> {
        let folder = std::env::temp_dir().join(format!("qera-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let layer = Self(folder);
        let bytes = stored_as(&Noise::new(3).numbers(side * side), FloatDtype::Bf16);
        let view = TensorView::new(Dtype::BF16, vec![side, side], &bytes)?;
        serialize_to_file([("layer.weight", view)], None, &layer.path())?;
        Ok(layer)
    }

    fn path(&self) -> PathBuf {
        self.0.join("model.safetensors")
    }
}

impl Drop for OneLayer {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn statistics(compute: Compute<'_>, side: usize) -> Result<SiteStatistics, Box<dyn Error>> {
    let rows = activations(&mut Noise::new(1), ROWS, side);
    let mut statistics = SiteStatistics::whole(side);
    let batch = Batch {
        site: 0,
        in_features: side,
        bytes: stored_as(&rows, FloatDtype::Bf16).into(),
        dtype: FloatDtype::Bf16,
        weights: None,
        batches: vec![ROWS / SEQUENCES; SEQUENCES],
        sequences: true,
    };
    statistics.fold(&batch, compute, &mut Scratch::default())?;
    Ok(statistics)
}

/// CPU seconds of a solve with this rounding.
fn solve(
    compute: Compute<'_>,
    checkpoint: &Path,
    statistics: &SiteStatistics,
    rounding: &str,
) -> Result<f64, Box<dyn Error>> {
    let options = format!("rounding = \"{rounding}\"\nquantizer = \"mxint3\"\nrank = 32");
    let problem = SiteProblem {
        checkpoint,
        options: &options,
        statistics,
    };
    let mut solved = Ok(Vec::new());
    let seconds = seconds_of(|| solved = problem.solve(compute));
    solved.map_err(|reason| reason.to_string())?;
    Ok(seconds)
}

fn main() -> Result<(), Box<dyn Error>> {
    let given: Vec<usize> = std::env::args()
        .filter_map(|side| side.parse().ok())
        .collect();
    let sides = if given.is_empty() {
        SIDES.to_vec()
    } else {
        given
    };
    let cores = Cores::new(1);
    let compute = Compute::new(Kernel::best(), &cores);
    let _core = cores.take();
    println!("mxint3/32, rank 32, {ROWS} rows, {}", compute.kernel.name());
    for side in sides {
        let layer = OneLayer::new(side)?;
        let statistics = statistics(compute, side)?;
        let mut seconds = ROUNDINGS.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            for (seconds, rounding) in seconds.iter_mut().zip(ROUNDINGS) {
                seconds.push(solve(compute, &layer.path(), &statistics, rounding)?);
            }
        }
        for (seconds, rounding) in seconds.into_iter().zip(ROUNDINGS) {
            println!(
                "{side:>6}  {rounding:<10} {} s",
                Samples::new(seconds).text(2)
            );
        }
    }
    Ok(())
}
