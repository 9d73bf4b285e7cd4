//! What the machine has, and why a device is not used.

use crate::error::DeviceError;
use core::fmt;

/// A CUDA device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Name by which the driver calls it.
    pub name: String,
    /// The size of its whole memory, in bytes.
    pub memory_bytes: usize,
    /// Compute capability, major and minor.
    pub compute_capability: (i32, i32),
    /// How many devices the driver lists.
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
        /// The call's result.
        code: u32,
        /// The driver's name for that result, when it has one.
        name: Option<String>,
    },
    /// The driver runs but lists no device.
    #[error("the CUDA driver lists no device")]
    NoDevice,
    /// The driver lists devices, but not this one.
    #[error("there is no CUDA device {ordinal}: the driver lists {device_count}")]
    Ordinal {
        /// The number asked for, from 0.
        ordinal: usize,
        /// How many there are.
        device_count: i32,
    },
    /// The kernels are not for a device of this age.
    #[error("the device has compute capability {major}.{minor}, and 8.0 is needed")]
    Capability {
        /// Major number.
        major: i32,
        /// Minor number.
        minor: i32,
    },
    /// No file of any of these names could be loaded, or it lacks a function.
    #[error("no cuBLAS library could be used (tried {})", searched.join(", "))]
    Blas {
        /// The names tried, in order.
        searched: Vec<String>,
    },
    /// Something failed while the device was made ready.
    #[error(transparent)]
    Device(#[from] DeviceError),
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
