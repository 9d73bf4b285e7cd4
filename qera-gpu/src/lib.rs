//! The CUDA side of qera: for now the probe that says which device there is, or why there is none.
//!
//! The driver library is loaded at run time, so the same binary runs on machines with and without
//! it; a machine without a GPU is a normal case, not a failure. [`probe`] never panics and never
//! ends the process: the library may be missing, may lack a function, may refuse to start, or may
//! find no device, and each of these is a [`Reason`] that can be printed.
//!
//! There are no kernels here: even where a device is found, solving runs on the host, and [`Probe`]
//! says so when printed.
//!
//! ```
//! let probe = qera_gpu::probe();
//! println!("{probe}"); // "no CUDA device is used: no CUDA driver library found (tried libcuda.so and 33 more)"
//! ```

mod device;

use core::fmt;

pub use device::probe;

/// What the machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The first device that the driver lists answers.
    Available(Device),
    /// There is none that could be used.
    Unavailable(Reason),
}

/// A CUDA device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Name by which the driver calls it.
    pub name: String,
    /// Its whole memory, in bytes.
    pub memory_bytes: usize,
    /// Compute capability, major and minor.
    pub compute_capability: (i32, i32),
    /// How many devices the driver lists; this is the first.
    pub device_count: i32,
}

/// Why no device can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// No file of any of these names could be loaded; when printed, the first is named and the
    /// others are counted.
    #[error("no CUDA driver library found (tried {})", abridged(searched))]
    Library {
        /// The names tried, in order.
        searched: Vec<String>,
    },
    /// The library was loaded, but the loader gave up while it looked for a function in it.
    #[error("the CUDA driver library cannot be used: {message}")]
    Loader {
        /// What the loader said.
        message: String,
    },
    /// A call into the driver failed.
    #[error("{call} failed with CUDA error {code}{}", name.as_deref().map(|name| format!(" ({name})")).unwrap_or_default())]
    Driver {
        /// The function called.
        call: &'static str,
        /// Its result.
        code: u32,
        /// The driver's name for that result, when it has one.
        name: Option<String>,
    },
    /// The driver runs but lists no device.
    #[error("the CUDA driver lists no device")]
    NoDevice,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Available(device) => write!(
                f,
                "{device} is present but not used: this version solves on the host"
            ),
            Self::Unavailable(reason) => write!(f, "no CUDA device is used: {reason}"),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.compute_capability;
        let mebibytes = self.memory_bytes >> 20;
        write!(
            f,
            "{} ({mebibytes} MiB, compute capability {major}.{minor})",
            self.name
        )
    }
}

fn abridged(names: &[String]) -> String {
    match names {
        [] => "no name".to_owned(),
        [only] => only.clone(),
        [first, others @ ..] => format!("{first} and {} more", others.len()),
    }
}
