//! A symmetric eigenproblem on the device.

use crate::error::{DeviceError, check_length};
use crate::offload::{Offload, SolveLane};

/// Decomposes the symmetric n x n matrix `a` (by columns; its lower triangle is read): n values in
/// ascending order; the vectors, as columns, take the place of `a`. In f64, by cuSOLVER.
///
/// # Errors
/// [`DeviceError::Unsupported`] where there is no cuSOLVER; others as everywhere. Then `a` is of no
/// use.
pub fn eigen(offload: &Offload, a: &mut [f64], values: &mut [f64]) -> Result<(), DeviceError> {
    let n = values.len();
    check_length("a matrix to decompose", a.len(), n.saturating_mul(n))?;
    if n == 0 {
        return Ok(());
    }
    let mut solving = offload.solving();
    let SolveLane {
        solver,
        lane,
        x_wide,
        y_wide,
        ..
    } = &mut *solving;
    let solver = solver
        .as_ref()
        .ok_or(DeviceError::Unsupported("no cuSOLVER"))?;
    let matrix = x_wide.of(lane.context(), a.len())?;
    let found = y_wide.of(lane.context(), n)?;
    lane.stream.upload(matrix, a)?;
    solver.decompose(matrix, found)?;
    lane.stream.download(matrix, a)?;
    lane.stream.download(found, values)
}
