//! The solve of one layer on a device, for who measures it: a run decides by itself what goes there
//! (`host/offload/placement.rs`), and goes on here where a call fails; this one does neither.

use std::sync::Arc;

use faer::MatRef;
use qera_gpu::Offload;

use crate::host::compute::Compute;
use crate::host::offload::accelerator::Accelerator;
use crate::host::offload::lent::LentDevice;
use crate::host::offload::placement::{Least, SolvedWidths};
use crate::host::solve_error::SolveError;
use crate::solve::direct::{LayerProblem, LowRankTerm};

/// Why a layer was not solved on the device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceSolveError {
    /// It would not have been on the host either.
    #[error(transparent)]
    Solve(#[from] SolveError),
    /// R and E do not fit into what is left of its memory.
    #[error("the device has no room for a layer of {in_features} x {out_features}")]
    Room {
        /// Width of the input.
        in_features: usize,
        /// Width of the output.
        out_features: usize,
    },
    /// Calls failed, and their products were taken on the host.
    #[error("on the device failed: {0}")]
    Device(String),
}

impl LayerProblem<'_> {
    /// [`solve`](Self::solve) with its products on a device, of which all is taken that is left: R
    /// and E go up, the products with them are taken there, what comes between is computed by
    /// `compute`.
    ///
    /// # Errors
    /// [`DeviceSolveError`].
    pub fn solve_on(
        &self,
        offload: &Arc<Offload>,
        compute: Compute<'_>,
        warm: Option<MatRef<'_, f64>>,
    ) -> Result<LowRankTerm, DeviceSolveError> {
        // The half that is for solves.
        let bytes = 2 * offload.memory_left();
        let accelerator = Accelerator::new(Arc::clone(offload), bytes, Least::NONE);
        let widths = SolvedWidths {
            in_features: self.in_features,
            out_features: self.error.len() / self.in_features.max(1),
            needs_r: true,
            rounds: false,
        };
        let lent = LentDevice::any(&accelerator, widths, Some(self.autocorrelation));
        let lent = lent.ok_or(DeviceSolveError::Room {
            in_features: widths.in_features,
            out_features: widths.out_features,
        })?;
        let term = self.solve(compute.beside(Some(&lent)), warm)?;
        match lent.failures() {
            failures if failures.is_empty() => Ok(term),
            failures => Err(DeviceSolveError::Device(failures.join("; "))),
        }
    }
}
