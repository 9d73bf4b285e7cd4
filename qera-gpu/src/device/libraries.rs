//! cuBLAS, found by name and loaded function by function.
//!
//! Not through cudarc: it would look for the library of the one CUDA version that it was built for,
//! and panic for a function that is not there. The binary interface of what is used here has been
//! the same since CUDA 11, so one table serves versions 12 and 13; which are tried says the driver,
//! because the libraries of a later CUDA than its own do not start.

use core::ffi::{c_int, c_void};
use core::mem::ManuallyDrop;
use cudarc::driver::sys::CUstream;
use libloading::Library;

/// A library's handle: a `cublasHandle_t`.
pub(crate) type Handle = *mut c_void;

/// First driver version of CUDA 13.
const DRIVER_13: i32 = 13_000;

/// The library's file names, newest first, that a driver of this version can serve.
pub(crate) fn blas_names(driver_version: i32) -> Vec<String> {
    let newest = (driver_version >= DRIVER_13).then_some("libcublas.so.13");
    let names = newest
        .into_iter()
        .chain(["libcublas.so.12", "libcublas.so"]);
    names.map(str::to_owned).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_library_is_newer_than_its_driver() {
        assert_eq!(blas_names(12_080), ["libcublas.so.12", "libcublas.so"]);
        assert_eq!(blas_names(0), blas_names(12_080), "it does not say");
        let newest = ["libcublas.so.13", "libcublas.so.12", "libcublas.so"];
        assert_eq!(blas_names(13_000), newest);
    }

    #[test]
    fn a_library_without_the_functions_is_none() {
        // The second is everywhere where Rust's own library runs, and multiplies nothing.
        for other in ["libqera-has-no-such-library.so", "libc.so.6"] {
            assert!(BlasFunctions::load(&[other.to_owned()]).is_none());
        }
    }
}
