//! Settings of computing: how many cores, which instructions, how much memory.

use crate::error::Fatal;
use crate::host::kernels::Kernel;
use crate::settings::device::DeviceSettings;
use crate::settings::memory_budget::MemoryBudget;
use crate::settings::options::Options;
use crate::settings::parse::{above_zero, at_least};

/// More threads than this would only fail when they are started.
const THREADS_MAX: usize = 1024;

/// The name that lets the CPU decide on the kernel.
const AUTO: &str = "auto";

/// Settings of computing.
#[derive(Debug, Clone)]
pub(crate) struct ComputeSettings {
    /// Worker threads of each compute stage.
    pub(crate) threads: usize,
    /// The kernel that accumulates and solves.
    pub(crate) kernel: Kernel,
    /// The features that `auto` had to do without, and why.
    pub(crate) done_without: Option<String>,
    /// The device that takes part of it.
    pub(crate) device: DeviceSettings,
    /// The memory that the plan may use.
    pub(crate) memory_budget: MemoryBudget,
    /// Bytes for rows held out and kept aside, of all sites together.
    pub(crate) window_memory: u64,
}

impl ComputeSettings {
    /// Checks the options of this part.
    ///
    /// # Errors
    /// [`Fatal::Usage`].
    pub(crate) fn resolve(options: &Options) -> Result<Self, Fatal> {
        let budget = options.memory_budget.as_deref().unwrap_or_default();
        let name = options.kernel.as_deref().unwrap_or(AUTO);
        Ok(Self {
            threads: threads(options)?,
            done_without: (name == AUTO).then(Kernel::done_without).flatten(),
            kernel: Kernel::named(name).map_err(|e| Fatal::Usage(format!("--kernel: {e}")))?,
            device: DeviceSettings::resolve(options)?,
            memory_budget: MemoryBudget::parse(budget)?,
            window_memory: above_zero("window-memory", options.window_memory.as_deref())?,
        })
    }
}

fn threads(options: &Options) -> Result<usize, Fatal> {
    let threads = match options.threads {
        None => std::thread::available_parallelism().map_or(1, core::num::NonZero::get),
        Some(threads) => threads as usize,
    };
    at_least("threads", threads, 1)?;
    if threads > THREADS_MAX {
        return Err(Fatal::Usage(format!(
            "--threads: must be at most {THREADS_MAX}"
        )));
    }
    Ok(threads)
}
