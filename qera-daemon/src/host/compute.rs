//! What multiplies matrices: a kernel, on some cores, and a device that takes part of it.

use crate::host::cores::Cores;
use crate::host::kernels::Kernel;
use crate::host::offload::lent::LentDevice;

/// The kernel and the cores that compute.
#[derive(Debug, Clone, Copy)]
pub struct Compute<'a> {
    /// The kernel, which says which instructions multiply.
    pub kernel: Kernel,
    /// The cores that may be used; the caller holds one of them.
    pub cores: &'a Cores,
    /// What of a CUDA device is lent for it, where there is one. It takes what was uploaded for
    /// many products; where it fails, the same is computed here.
    pub(crate) device: Option<&'a LentDevice<'a>>,
}

impl<'a> Compute<'a> {
    /// By these instructions, on these cores.
    #[must_use]
    pub const fn new(kernel: Kernel, cores: &'a Cores) -> Self {
        Self {
            kernel,
            cores,
            device: None,
        }
    }

    /// The same beside this device, where there is one.
    #[must_use]
    pub(crate) const fn beside(self, device: Option<&'a LentDevice<'a>>) -> Self {
        Self { device, ..self }
    }
}
