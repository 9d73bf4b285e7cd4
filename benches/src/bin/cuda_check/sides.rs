//! What is compared.

use std::sync::Arc;

use qera_daemon::Compute;
use qera_gpu::Offload;

/// Why nothing more was measured.
pub(crate) type CheckFailure = Box<dyn core::error::Error>;

/// The two sides.
#[derive(Clone, Copy)]
pub(crate) struct Sides<'a> {
    pub(crate) offload: &'a Arc<Offload>,
    /// This host.
    pub(crate) compute: Compute<'a>,
}
