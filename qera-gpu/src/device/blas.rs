//! Products of matrices by cuBLAS, on one stream, the same bits every time.
//!
//! The workspace is ours, sums use no atomics, and f32 products are products of f32 (pedantic math:
//! never TF32). bf16 and f16 numbers are multiplied as such, exactly, by whatever unit is fastest,
//! and summed in f32, partial results too.

use crate::device::call::Status;
use crate::device::libraries::{BlasFunctions, Gemm, Handle};
use crate::device::memory::{DeviceBuffer, Plain, Span};
use crate::device::stream::Stream;
use crate::error::DeviceError;
use core::ffi::c_int;
use qera_core::dtype::FloatDtype;
use std::sync::Arc;

/// The size of workspace that NVIDIA advises for its largest devices.
pub(crate) const WORKSPACE_BYTES: usize = 32 << 20;

const OP_N: u32 = 0;
const OP_T: u32 = 1;
/// `CUBLAS_PEDANTIC_MATH` and `CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION`.
const PEDANTIC_MATH: u32 = 2;
const NO_REDUCED_REDUCTION: u32 = 16;
const ATOMICS_NOT_ALLOWED: u32 = 0;
/// `CUDA_R_32F`, `CUDA_R_16F`, `CUDA_R_16BF`.
const TYPE_F32: u32 = 0;
const TYPE_F16: u32 = 2;
const TYPE_BF16: u32 = 14;
/// `CUBLAS_COMPUTE_32F`, `CUBLAS_COMPUTE_32F_PEDANTIC`.
const COMPUTE_F32: u32 = 68;
const COMPUTE_F32_PEDANTIC: u32 = 69;
/// `CUBLAS_GEMM_DEFAULT`.
const ALGORITHM: c_int = -1;

/// A handle to cuBLAS, which works in one stream.
#[derive(Debug)]
pub(crate) struct Blas {
    functions: Arc<BlasFunctions>,
    stream: Arc<Stream>,
    handle: Handle,
    /// Lent to the handle; freed after it.
    _workspace: DeviceBuffer<u8>,
}

// SAFETY: a handle may go from thread to thread; its owner uses it from one at a time.
unsafe impl Send for Blas {}

/// Numbers that cuBLAS multiplies and sums as such.
pub(crate) trait Real: Plain {
    const ZERO: Self;
    const ONE: Self;
    /// The function that multiplies them.
    const NAME: &'static str;
    fn function(functions: &BlasFunctions) -> Gemm<Self>;
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const NAME: &'static str = "cublasSgemm";
    fn function(functions: &BlasFunctions) -> Gemm<Self> {
        functions.sgemm
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const NAME: &'static str = "cublasDgemm";
    fn function(functions: &BlasFunctions) -> Gemm<Self> {
        functions.dgemm
    }
}

/// C (m x n) = op(A) op(B) + beta C, by columns, A as it lies or transposed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product<'a, T: Plain> {
    /// Rows and columns of C, and how many products are summed.
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) depth: usize,
    /// m x depth, with this distance between columns.
    pub(crate) a: Span<'a, T>,
    pub(crate) a_stride: usize,
    /// depth x n with this distance between columns, or n x depth where it is transposed.
    pub(crate) b: Span<'a, T>,
    pub(crate) b_stride: usize,
    pub(crate) b_transposed: bool,
    /// m x n.
    pub(crate) c: Span<'a, T>,
    /// Whether it is added to what C holds.
    pub(crate) add: bool,
}

/// A product's sizes as cuBLAS takes them, held against the memory.
struct Sizes {
    m: c_int,
    n: c_int,
    depth: c_int,
    a_stride: c_int,
    b_stride: c_int,
}

impl<T: Plain> Product<'_, T> {
    fn sizes(&self) -> Result<Sizes, DeviceError> {
        let (b_rows, b_columns) = if self.b_transposed {
            (self.n, self.depth)
        } else {
            (self.depth, self.n)
        };
        holds(
            "A of a product",
            self.a.len,
            self.a_stride,
            self.m,
            self.depth,
        )?;
        holds(
            "B of a product",
            self.b.len,
            self.b_stride,
            b_rows,
            b_columns,
        )?;
        holds("C of a product", self.c.len, self.m, self.m, self.n)?;
        Ok(Sizes {
            m: int(self.m)?,
            n: int(self.n)?,
            depth: int(self.depth)?,
            a_stride: int(self.a_stride)?,
            b_stride: int(self.b_stride)?,
        })
    }
}

/// Rows of which X^T X is wanted in part: channels `first..first + width` against all from `first`
/// on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GramPanel<'a> {
    /// Row by row, as they came.
    pub(crate) rows: Span<'a, u8>,
    pub(crate) dtype: FloatDtype,
    pub(crate) count: usize,
    pub(crate) in_features: usize,
    pub(crate) first: usize,
    pub(crate) width: usize,
    /// Channel by channel of the panel, `in_features - first` sums each.
    pub(crate) sums: Span<'a, f32>,
}

impl Blas {
    /// Makes a handle with a workspace of its own.
    pub(crate) fn new(
        functions: &Arc<BlasFunctions>,
        stream: &Arc<Stream>,
    ) -> Result<Self, DeviceError> {
        let context = stream.context();
        let workspace = DeviceBuffer::new(context, WORKSPACE_BYTES)?;
        let mut handle = core::ptr::null_mut();
        context.call("cublasCreate", || {
            // SAFETY: `handle` outlives the call.
            Status::Blas(unsafe { (functions.create)(&raw mut handle) })
        })?;
        // From here on dropped, and so destroyed, on every way out.
        let blas = Self {
            functions: Arc::clone(functions),
            stream: Arc::clone(stream),
            handle,
            _workspace: workspace,
        };
        context.call("cublasSetStream", || {
            // SAFETY: handle and stream exist, and this handle holds its stream.
            Status::Blas(unsafe { (functions.set_stream)(handle, stream.handle()) })
        })?;
        context.call("cublasSetWorkspace", || {
            let start = blas._workspace.whole().pointer();
            // SAFETY: so many bytes, which live until the handle is destroyed.
            Status::Blas(unsafe { (functions.set_workspace)(handle, start, WORKSPACE_BYTES) })
        })?;
        context.call("cublasSetAtomicsMode", || {
            // SAFETY: the handle exists.
            Status::Blas(unsafe { (functions.set_atomics_mode)(handle, ATOMICS_NOT_ALLOWED) })
        })?;
        blas.set_math_mode(PEDANTIC_MATH)?;
        Ok(blas)
    }

    /// The library's version: major 10000, minor 100, patch.
    pub(crate) fn version(&self) -> Result<i32, DeviceError> {
        let mut version = 0;
        self.stream.context().call("cublasGetVersion", || {
            // SAFETY: the handle exists, and `version` outlives the call.
            Status::Blas(unsafe { (self.functions.version)(self.handle, &raw mut version) })
        })?;
        Ok(version)
    }

    fn set_math_mode(&self, mode: u32) -> Result<(), DeviceError> {
        self.stream.context().call("cublasSetMathMode", || {
            // SAFETY: the handle exists.
            Status::Blas(unsafe { (self.functions.set_math_mode)(self.handle, mode) })
        })
    }

    /// Multiplies, products and sums in the type of the numbers.
    pub(crate) fn multiply<T: Real>(&self, product: &Product<'_, T>) -> Result<(), DeviceError> {
        let sizes = product.sizes()?;
        let (alpha, beta) = (T::ONE, if product.add { T::ONE } else { T::ZERO });
        let operation = if product.b_transposed { OP_T } else { OP_N };
        let (a, b) = (product.a.pointer().cast(), product.b.pointer().cast());
        let c = product.c.pointer().cast();
        self.stream.context().call(T::NAME, || {
            // SAFETY: `sizes` holds the matrices against their memory; alpha and beta are read by
            // the call.
            let code = unsafe {
                T::function(&self.functions)(
                    self.handle,
                    OP_N,
                    operation,
                    sizes.m,
                    sizes.n,
                    sizes.depth,
                    &raw const alpha,
                    a,
                    sizes.a_stride,
                    b,
                    sizes.b_stride,
                    &raw const beta,
                    c,
                    sizes.m,
                )
            };
            Status::Blas(code)
        })
    }

    /// A part of X^T X, products exact or in f32, sums in f32.
    pub(crate) fn gram(&self, panel: &GramPanel<'_>) -> Result<(), DeviceError> {
        let GramPanel {
            count,
            in_features,
            first,
            width,
            ..
        } = *panel;
        let beside = in_features
            .checked_sub(first)
            .filter(|beside| width <= *beside);
        let beside = beside.ok_or(DeviceError::Unsupported("a panel beyond the channels"))?;
        let size = panel.dtype.size_bytes();
        holds(
            "rows",
            panel.rows.len / size,
            in_features,
            in_features,
            count,
        )?;
        holds("sums of a panel", panel.sums.len, beside, beside, width)?;
        let (kind, compute) = match panel.dtype {
            FloatDtype::F32 => (TYPE_F32, COMPUTE_F32_PEDANTIC),
            FloatDtype::F16 => (TYPE_F16, COMPUTE_F32),
            FloatDtype::Bf16 => (TYPE_BF16, COMPUTE_F32),
        };
        // Tensor cores are not pedantic; of products that are exact only the order of sums is free.
        self.set_math_mode(match panel.dtype {
            FloatDtype::F32 => PEDANTIC_MATH,
            FloatDtype::F16 | FloatDtype::Bf16 => NO_REDUCED_REDUCTION,
        })?;
        let (m, n, depth) = (int(beside)?, int(width)?, int(count)?);
        let stride = int(in_features)?;
        let rows = panel
            .rows
            .part(first * size, panel.rows.len - first * size)?
            .pointer()
            .cast_const();
        let (alpha, beta) = (1.0_f32, 0.0_f32);
        self.stream.context().call("cublasGemmEx", || {
            // SAFETY: rows and sums are as long as `holds` says; alpha and beta are f32, as the way
            // of computing asks, and read by the call.
            let code = unsafe {
                (self.functions.gemm_ex)(
                    self.handle,
                    OP_N,
                    OP_T,
                    m,
                    n,
                    depth,
                    (&raw const alpha).cast(),
                    rows,
                    kind,
                    stride,
                    rows,
                    kind,
                    stride,
                    (&raw const beta).cast(),
                    panel.sums.pointer(),
                    TYPE_F32,
                    m,
                    compute,
                    ALGORITHM,
                )
            };
            Status::Blas(code)
        })?;
        self.set_math_mode(PEDANTIC_MATH)
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        self.stream.context().settle();
        self.stream.context().release(|| {
            // SAFETY: created once in `new`, destroyed once here.
            let _ = unsafe { (self.functions.destroy)(self.handle) };
        });
    }
}

/// Whether memory for `len` numbers holds columns of `rows`, `stride` apart.
fn holds(
    what: &'static str,
    len: usize,
    stride: usize,
    rows: usize,
    columns: usize,
) -> Result<(), DeviceError> {
    let needed = columns.checked_sub(1).map_or(Some(0), |before| {
        before.checked_mul(stride)?.checked_add(rows)
    });
    match needed {
        Some(needed) if needed <= len && rows <= stride => Ok(()),
        _ => Err(DeviceError::Length {
            what,
            expected: needed.unwrap_or(usize::MAX),
            found: len,
        }),
    }
}

/// A size as the library takes it.
fn int(size: usize) -> Result<c_int, DeviceError> {
    c_int::try_from(size).map_err(|_| DeviceError::Unsupported("a matrix of 2^31 rows or columns"))
}
