//! What multiplies matrices: instructions and cores.

use crate::host::cores::Cores;
use crate::host::kernels::Kernel;

/// Where something is computed.
#[derive(Debug, Clone, Copy)]
pub struct Compute<'a> {
    /// By which instructions.
    pub kernel: Kernel,
    /// On which cores; the caller holds one of them.
    pub cores: &'a Cores,
}
