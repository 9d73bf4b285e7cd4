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
    /// There is no file of any of these names; when printed, the first is named and the others are
    /// counted.
    #[error("no CUDA driver library found (tried {})", abridged(searched))]
    Library {
        /// The names tried, in order.
        searched: Vec<String>,
    },
    /// There is such a file, and it cannot be loaded or lacks a function.
    #[error("the CUDA driver library cannot be used: {message}")]
    Loader {
        /// What the loader said, or what is missing.
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
    #[error("no cuBLAS library could be used (tried {}){}", searched.join(", "), behind(said))]
    Blas {
        /// The names tried, in order.
        searched: Vec<String>,
        /// Why those that are there cannot be used.
        said: Vec<String>,
    },
    /// Less than is needed may be used.
    #[error(
        "too little device memory: {} may be used, of {} that are free, and {} are needed",
        mebibytes(*allowed),
        mebibytes(*free),
        mebibytes(*needed)
    )]
    Memory {
        /// Bytes that may be used.
        allowed: u64,
        /// Bytes that were free when the device was opened.
        free: u64,
        /// Bytes that are needed at least.
        needed: u64,
    },
    /// Something failed while the device was made ready.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.compute_capability;
        let memory = mebibytes(self.memory_bytes as u64);
        write!(
            f,
            "{} ({memory}, compute capability {major}.{minor})",
            self.name
        )
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn behind(said: &[String]) -> String {
    match said {
        [] => String::new(),
        said => format!(": {}", said.join("; ")),
    }
}

fn abridged(names: &[String]) -> String {
    match names {
        [] => "no name".to_owned(),
        [only] => only.clone(),
        [first, others @ ..] => format!("{first} and {} more", others.len()),
    }
}
