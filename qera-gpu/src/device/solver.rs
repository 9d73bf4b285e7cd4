//! Eigenproblems by cuSOLVER.

use crate::device::blas::int;
use crate::device::call::Status;
use crate::device::libraries::{Handle, SolverFunctions};
use crate::device::memory::{DeviceBuffer, Span};
use crate::device::stream::Stream;
use crate::error::{DeviceError, check_length};
use std::sync::Arc;

/// `CUSOLVER_EIG_MODE_VECTOR`, `CUBLAS_FILL_MODE_LOWER`.
const VECTORS: u32 = 1;
const LOWER: u32 = 0;

/// A handle to cuSOLVER, which works in one stream.
#[derive(Debug)]
pub(crate) struct Solver {
    functions: SolverFunctions,
    stream: Arc<Stream>,
    handle: Handle,
}

// SAFETY: a handle may go from thread to thread; its owner uses it from one at a time.
unsafe impl Send for Solver {}

impl Solver {
    pub(crate) fn new(
        functions: SolverFunctions,
        stream: &Arc<Stream>,
    ) -> Result<Self, DeviceError> {
        let context = stream.context();
        let mut handle = core::ptr::null_mut();
        context.call("cusolverDnCreate", || {
            // SAFETY: `handle` outlives the call.
            Status::Solver(unsafe { (functions.create)(&raw mut handle) })
        })?;
        // From here on dropped, and so destroyed, on every way out.
        let solver = Self {
            functions,
            stream: Arc::clone(stream),
            handle,
        };
        context.call("cusolverDnSetStream", || {
            // SAFETY: handle and stream exist, and this handle holds its stream.
            let code = unsafe { (solver.functions.set_stream)(handle, stream.handle()) };
            Status::Solver(code)
        })?;
        Ok(solver)
    }

    /// The library's version: major 1000, minor 100, patch.
    pub(crate) fn version(&self) -> Result<i32, DeviceError> {
        let mut version = 0;
        self.stream.context().call("cusolverGetVersion", || {
            // SAFETY: `version` outlives the call.
            Status::Solver(unsafe { (self.functions.version)(&raw mut version) })
        })?;
        Ok(version)
    }

    /// Eigenvalues of the symmetric n x n matrix in ascending order; the vectors take its place.
    pub(crate) fn decompose(
        &self,
        matrix: Span<'_, f64>,
        values: Span<'_, f64>,
    ) -> Result<(), DeviceError> {
        let n = values.len;
        check_length("a matrix to decompose", matrix.len, n.saturating_mul(n))?;
        let size = int(n)?;
        let (a, w) = (
            matrix.pointer().cast::<f64>(),
            values.pointer().cast::<f64>(),
        );
        let mut length = 0;
        self.stream
            .context()
            .call("cusolverDnDsyevd_bufferSize", || {
                // SAFETY: matrix and values are as long as n says; `length` outlives the call.
                let code = unsafe {
                    (self.functions.syevd_length)(
                        self.handle,
                        VECTORS,
                        LOWER,
                        size,
                        a,
                        size,
                        w,
                        &raw mut length,
                    )
                };
                Status::Solver(code)
            })?;
        let numbers = usize::try_from(length).unwrap_or_default();
        let workspace = DeviceBuffer::<f64>::new(self.stream.context(), numbers)?;
        let info = DeviceBuffer::<i32>::new(self.stream.context(), 1)?;
        self.stream.context().call("cusolverDnDsyevd", || {
            // SAFETY: as above; the workspace has the length that was just asked for.
            let code = unsafe {
                (self.functions.syevd)(
                    self.handle,
                    VECTORS,
                    LOWER,
                    size,
                    a,
                    size,
                    w,
                    workspace.whole().pointer().cast(),
                    length,
                    info.whole().pointer().cast(),
                )
            };
            Status::Solver(code)
        })?;
        let mut info_here = [0_i32];
        self.stream.download(info.whole(), &mut info_here)?;
        match info_here {
            [0] => Ok(()),
            _ => Err(DeviceError::Unsupported(
                "an eigenproblem that did not converge",
            )),
        }
    }
}

impl Drop for Solver {
    fn drop(&mut self) {
        self.stream.context().settle();
        self.stream.context().release(|| {
            // SAFETY: created once in `new`, destroyed once here.
            let _ = unsafe { (self.functions.destroy)(self.handle) };
        });
    }
}
