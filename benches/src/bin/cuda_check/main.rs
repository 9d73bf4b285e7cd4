//! What a CUDA device does of a run, timed beside this host; `benches/cuda/run` runs it.
//!
//! `cuda_check SIZE...` opens the first device and, for each number of channels, accumulates rows
//! of each type and multiplies as a solve does. One JSON object on standard output. Elapsed
//! seconds: a device is waited for.
#![expect(clippy::print_stdout, reason = "its output is the measurement")]

mod accumulate;
mod inputs;
mod multiply;
mod solve;

use std::process::ExitCode;
use std::sync::Arc;

use qera_daemon::{Compute, Cores, Kernel};
use qera_gpu::{Offload, OffloadOptions};

type CheckFailure = Box<dyn core::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(found) => {
            println!("{found}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the only message")]
            {
                eprintln!("cuda_check: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<serde_json::Value, CheckFailure> {
    let sizes: Vec<usize> = std::env::args()
        .skip(1)
        .map(|size| size.parse())
        .collect::<Result<_, _>>()?;
    let offload = Arc::new(Offload::open(&OffloadOptions::default())?);
    let cores = Cores::new(std::thread::available_parallelism()?.get());
    let _core = cores.take();
    let compute = Compute::new(Kernel::named("auto")?, &cores);
    Ok(serde_json::json!({
        "device": offload.device().to_string(),
        "libraries": offload.libraries(),
        "host_kernel": compute.kernel.name(),
        "host_threads": std::thread::available_parallelism()?.get(),
        "accumulate": accumulate::all(&offload, compute, &sizes)?,
        "multiply": multiply::all(&offload, compute, &sizes)?,
        "solve": solve::all(&offload, compute, &sizes)?,
    }))
}
