//! What a CUDA device does of a run, timed beside this host; `benches/cuda/run` runs it.
//!
//! `cuda_check SIZE...` opens the first device and, for each number of channels, accumulates rows
//! of each type, multiplies as a solve does, and solves. One JSON object a line on standard output.
//! Elapsed seconds: a device is waited for.
#![expect(clippy::print_stdout, reason = "its output is the measurement")]

mod accumulate;
mod inputs;
mod multiply;
mod sides;
mod solve;

use std::process::ExitCode;
use std::sync::Arc;

use qera_daemon::{Compute, Cores, Kernel};
use qera_gpu::{Offload, OffloadOptions};

use crate::sides::{CheckFailure, Sides};

/// What is measured with one number of channels.
type Part = fn(Sides<'_>, usize) -> Result<Vec<serde_json::Value>, CheckFailure>;

/// The parts, in their order: a run that is ended early has done the first ones.
const PARTS: [(&str, Part); 3] = [
    ("accumulate", accumulate::of_size),
    ("multiply", multiply::of_size),
    ("solve", solve::of_size),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the only message")]
            {
                eprintln!("cuda_check: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), CheckFailure> {
    let sizes: Vec<usize> = std::env::args()
        .skip(1)
        .map(|size| size.parse())
        .collect::<Result<_, _>>()?;
    let offload = Arc::new(Offload::open(&OffloadOptions::default())?);
    let threads = std::thread::available_parallelism()?.get();
    let cores = Cores::new(threads);
    let _core = cores.take();
    let sides = Sides {
        offload: &offload,
        compute: Compute::new(Kernel::named("auto")?, &cores),
    };
    let machine = serde_json::json!({
        "part": "machine",
        "device": offload.device().to_string(),
        "libraries": offload.libraries(),
        "host_kernel": sides.compute.kernel.name(),
        "host_threads": threads,
    });
    println!("{machine}");
    for (name, part) in PARTS {
        for &m in &sizes {
            for mut found in part(sides, m)? {
                found["part"] = name.into();
                println!("{found}");
            }
        }
    }
    Ok(())
}
