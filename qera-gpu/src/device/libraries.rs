//! cuBLAS and cuSOLVER, found by name and loaded function by function.
//!
//! Not through cudarc: it would look for the libraries of the one CUDA version that it was built
//! for, and panic for a function that is not there. The binary interface of what is used here has
//! been the same since CUDA 11, so one table serves versions 12 and 13; which are tried says the
//! driver, because the libraries of a later CUDA than its own do not start.

use core::ffi::{c_int, c_void};
use core::mem::ManuallyDrop;
use cudarc::driver::sys::CUstream;
use libloading::Library;

/// A library's handle: a `cublasHandle_t`, a `cusolverDnHandle_t`.
pub(crate) type Handle = *mut c_void;

/// First driver version of CUDA 13.
const DRIVER_13: i32 = 13_000;

/// A library's file names, newest first, that a driver of this version can serve.
pub(crate) fn names(stem: &str, driver_version: i32, by_cuda: [u32; 2]) -> Vec<String> {
    let [with_13, with_12] = by_cuda;
    let newest = (driver_version >= DRIVER_13).then_some(with_13);
    let numbers = newest.into_iter().chain([with_12]);
    let mut names: Vec<_> = numbers.map(|n| format!("lib{stem}.so.{n}")).collect();
    names.push(format!("lib{stem}.so"));
    names
}

/// A library by its well-known name.
fn open(name: &str) -> Option<Library> {
    // SAFETY: its initialisers are those that every program that uses it runs.
    unsafe { Library::new(name) }.ok()
}

/// Declares a table of functions, and how it is filled from a library: all of them, or none.
macro_rules! functions {
    ($(#[$about:meta])* $table:ident { $($field:ident = $symbol:literal : $signature:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug)]
        pub(crate) struct $table {
            $(pub(crate) $field: $signature,)*
            /// Holds the code that the others point to. Never unloaded: the driver may still know
            /// of what the library registered there.
            _library: ManuallyDrop<Library>,
        }

        impl $table {
            /// Loads the functions from the first of these files that has all of them.
            pub(crate) fn load(names: &[String]) -> Option<Self> {
                names.iter().find_map(|name| Self::of(open(name)?))
            }

            fn of(library: Library) -> Option<Self> {
                $(
                    // SAFETY: the signature is that of the library's header.
                    let $field = *unsafe { library.get::<$signature>($symbol) }.ok()?;
                )*
                Some(Self { $($field,)* _library: ManuallyDrop::new(library) })
            }
        }
    };
}

functions! {
    /// Functions of cuBLAS; each answers a `cublasStatus_t`.
    BlasFunctions {
        create = b"cublasCreate_v2\0": unsafe extern "C" fn(*mut Handle) -> u32,
        destroy = b"cublasDestroy_v2\0": unsafe extern "C" fn(Handle) -> u32,
        version = b"cublasGetVersion_v2\0": unsafe extern "C" fn(Handle, *mut c_int) -> u32,
        set_stream = b"cublasSetStream_v2\0": unsafe extern "C" fn(Handle, CUstream) -> u32,
        set_workspace = b"cublasSetWorkspace_v2\0":
            unsafe extern "C" fn(Handle, *mut c_void, usize) -> u32,
        set_math_mode = b"cublasSetMathMode\0": unsafe extern "C" fn(Handle, u32) -> u32,
        set_atomics_mode = b"cublasSetAtomicsMode\0": unsafe extern "C" fn(Handle, u32) -> u32,
        gemm_ex = b"cublasGemmEx\0": GemmEx,
        sgemm = b"cublasSgemm_v2\0": Gemm<f32>,
        dgemm = b"cublasDgemm_v2\0": Gemm<f64>,
    }
}

functions! {
    /// Functions of cuSOLVER; each answers a `cusolverStatus_t`.
    SolverFunctions {
        create = b"cusolverDnCreate\0": unsafe extern "C" fn(*mut Handle) -> u32,
        destroy = b"cusolverDnDestroy\0": unsafe extern "C" fn(Handle) -> u32,
        version = b"cusolverGetVersion\0": unsafe extern "C" fn(*mut c_int) -> u32,
        set_stream = b"cusolverDnSetStream\0": unsafe extern "C" fn(Handle, CUstream) -> u32,
        syevd_length = b"cusolverDnDsyevd_bufferSize\0": SyevdLength,
        syevd = b"cusolverDnDsyevd\0": Syevd,
    }
}

/// `cublasSgemm`, `cublasDgemm`: handle, operations, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc.
pub(crate) type Gemm<T> = unsafe extern "C" fn(
    Handle,
    u32,
    u32,
    c_int,
    c_int,
    c_int,
    *const T,
    *const T,
    c_int,
    *const T,
    c_int,
    *const T,
    *mut T,
    c_int,
) -> u32;

/// `cublasGemmEx`: the same with a type behind each matrix, and at the end how it is computed.
pub(crate) type GemmEx = unsafe extern "C" fn(
    Handle,
    u32,
    u32,
    c_int,
    c_int,
    c_int,
    *const c_void,
    *const c_void,
    u32,
    c_int,
    *const c_void,
    u32,
    c_int,
    *const c_void,
    *mut c_void,
    u32,
    c_int,
    u32,
    c_int,
) -> u32;

/// `cusolverDnDsyevd_bufferSize`: handle, what, triangle, n, A, lda, W, length.
pub(crate) type SyevdLength =
    unsafe extern "C" fn(Handle, u32, u32, c_int, *const f64, c_int, *const f64, *mut c_int) -> u32;

/// `cusolverDnDsyevd`: handle, what, triangle, n, A, lda, W, workspace, its length, info.
pub(crate) type Syevd = unsafe extern "C" fn(
    Handle,
    u32,
    u32,
    c_int,
    *mut f64,
    c_int,
    *mut f64,
    *mut f64,
    c_int,
    *mut c_int,
) -> u32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_library_is_newer_than_its_driver() {
        let of = |version| names("cublas", version, [13, 12]);
        assert_eq!(of(12_080), ["libcublas.so.12", "libcublas.so"]);
        assert_eq!(of(0), of(12_080), "a driver that does not say");
        let newest = ["libcublas.so.13", "libcublas.so.12", "libcublas.so"];
        assert_eq!(of(13_000), newest);
    }

    #[test]
    fn a_library_without_the_functions_is_none() {
        let absent = [String::from("libqera-has-no-such-library.so")];
        assert!(BlasFunctions::load(&absent).is_none());
        // It is everywhere where Rust's own library runs, and multiplies nothing.
        let other = [String::from("libc.so.6")];
        assert!(SolverFunctions::load(&other).is_none());
    }
}
