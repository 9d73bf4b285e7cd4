//! What can go wrong while a device computes.

/// Why something was not computed on the device. Nothing is lost by it on the host: the caller
/// computes there instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The device, or the bound given for it, has no room.
    #[error("no room on the device{}", room(*asked, *left))]
    OutOfMemory {
        /// Bytes asked for; 0 where a library did not say.
        asked: u64,
        /// Bytes that were left, by the driver's or by our own account.
        left: u64,
    },
    /// A call failed.
    #[error("{call} failed with error {code}{}", name.as_deref().map(|name| format!(" ({name})")).unwrap_or_default())]
    Call {
        /// The function called.
        call: &'static str,
        /// The function's result, in the numbering of its library.
        code: u32,
        /// Its name there, when it has one.
        name: Option<String>,
        /// Whether the device is lost with it: from then on every call of this
        /// [`Offload`](crate::Offload) answers the same. Else it was the answer to this call alone.
        lost: bool,
    },
    /// A library lacks a function.
    #[error("a CUDA library cannot be used: {message}")]
    Loader {
        /// What the loader said.
        message: String,
    },
    /// This device or these libraries cannot do it; others could.
    #[error("not possible on this device: {0}")]
    Unsupported(&'static str),
    /// The caller's lengths do not fit.
    #[error("{what}: {found} numbers where {expected} are needed")]
    Length {
        /// What the numbers are of.
        what: &'static str,
        /// How many there are to be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
}

impl DeviceError {
    /// Whether the device is not to be asked again.
    pub(crate) const fn is_final(&self) -> bool {
        matches!(self, Self::Call { lost: true, .. } | Self::Loader { .. })
    }

    /// The same, the device being lost with it.
    pub(crate) fn of_all(mut self) -> Self {
        if let Self::Call { lost, .. } = &mut self {
            *lost = true;
        }
        self
    }
}

fn room(asked: u64, left: u64) -> String {
    match asked {
        0 => String::new(),
        _ => format!(": {asked} bytes asked for, {left} left"),
    }
}

/// Holds a length against what is needed.
pub(crate) const fn check_length(
    what: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), DeviceError> {
    if found == expected {
        Ok(())
    } else {
        Err(DeviceError::Length {
            what,
            expected,
            found,
        })
    }
}
