//! What multiplies matrices: a kernel, on some cores.

use crate::host::cores::Cores;
use crate::host::kernels::Kernel;

/// The kernel and the cores that compute.
#[derive(Debug, Clone, Copy)]
pub struct Compute<'a> {
    /// The kernel, which says which instructions multiply.
    pub kernel: Kernel,
    /// The cores that may be used; the caller holds one of them.
    pub cores: &'a Cores,
}
