//! The libraries: the driver's functions are looked for before cudarc calls them, cuBLAS is found
//! by name and loaded function by function.
//!
//! cuBLAS not through cudarc: it would look for the library of the one CUDA version that it was
//! built for, and panic for a function that is not there. The binary interface of what is used here
//! has been the same since CUDA 11, so one table serves versions 12 and 13; which are tried says
//! the driver, because the libraries of a later CUDA than its own do not start.

use crate::probe::Reason;
use core::error::Error as _;
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

/// The driver's functions that are called.
pub const DRIVER_FUNCTIONS: [&str; 32] = [
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuGetErrorName",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
];

/// Checks that the driver's library is there and has these functions: cudarc panics where one is
/// missing.
///
/// # Errors
/// [`Reason::Library`], [`Reason::Loader`].
pub fn check_driver() -> Result<(), Reason> {
    let names = ["cuda", "nvcuda"];
    // cudarc takes the first of these that the loader gives, too.
    let searched: Vec<String> = names
        .iter()
        .flat_map(|name| cudarc::get_lib_name_candidates(name))
        .collect();
    let mut said = None;
    for name in &searched {
        let library = match open(name) {
            Ok(library) => ManuallyDrop::new(library),
            Err(why) => {
                said = said.or(why);
                continue;
            }
        };
        let lacks = |function: &&&str| {
            // SAFETY: it is only looked for.
            unsafe { library.get::<*const c_void>(function.as_bytes()) }.is_err()
        };
        return match DRIVER_FUNCTIONS.iter().find(lacks) {
            None => Ok(()),
            Some(function) => Err(Reason::Loader {
                message: format!("{name} has no {function}"),
            }),
        };
    }
    Err(match said {
        Some(message) => Reason::Loader { message },
        None => Reason::Library { searched },
    })
}

/// A library by its well-known name.
///
/// # Errors
/// What the loader said of a file that is there and that it did not load; `None` where there is
/// none.
fn open(name: &str) -> Result<Library, Option<String>> {
    // SAFETY: its initialisers are those that every program that uses it runs.
    let opened = unsafe { Library::new(name) };
    opened.map_err(|error| {
        let said = error.source().map(ToString::to_string)?;
        let is_missing = said.contains(name) && said.to_lowercase().contains("no such file");
        (cfg!(unix) && !is_missing).then_some(said)
    })
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
            ///
            /// # Errors
            /// Why those that are there cannot be used.
            pub(crate) fn load(names: &[String]) -> Result<Self, Vec<String>> {
                let mut said = Vec::new();
                for name in names {
                    match open(name).and_then(|library| Self::of(library, name)) {
                        Ok(table) => return Ok(table),
                        Err(why) => said.extend(why),
                    }
                }
                Err(said)
            }

            fn of(library: Library, name: &str) -> Result<Self, Option<String>> {
                $(
                    let symbol: &str = $symbol;
                    // SAFETY: the signature is that of the library's header.
                    let found = unsafe { library.get::<$signature>(symbol.as_bytes()) };
                    let $field = *found.map_err(|_| Some(format!("{name} has no {symbol}")))?;
                )*
                Ok(Self { $($field,)* _library: ManuallyDrop::new(library) })
            }
        }
    };
}

functions! {
    /// Functions of cuBLAS; each answers a `cublasStatus_t`.
    BlasFunctions {
        create = "cublasCreate_v2": unsafe extern "C" fn(*mut Handle) -> u32,
        destroy = "cublasDestroy_v2": unsafe extern "C" fn(Handle) -> u32,
        version = "cublasGetVersion_v2": unsafe extern "C" fn(Handle, *mut c_int) -> u32,
        set_stream = "cublasSetStream_v2": unsafe extern "C" fn(Handle, CUstream) -> u32,
        set_workspace = "cublasSetWorkspace_v2":
            unsafe extern "C" fn(Handle, *mut c_void, usize) -> u32,
        set_math_mode = "cublasSetMathMode": unsafe extern "C" fn(Handle, u32) -> u32,
        set_atomics_mode = "cublasSetAtomicsMode": unsafe extern "C" fn(Handle, u32) -> u32,
        gemm_ex = "cublasGemmEx": GemmEx,
        sgemm = "cublasSgemm_v2": Gemm<f32>,
        dgemm = "cublasDgemm_v2": Gemm<f64>,
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
        for (other, said) in [
            ("libqera-has-no-such-library.so", &[][..]),
            ("libc.so.6", &["libc.so.6 has no cublasCreate_v2"]),
        ] {
            assert_eq!(BlasFunctions::load(&[other.to_owned()]).unwrap_err(), said);
        }
    }

    /// Every function of the driver that a source of this folder calls is looked for before.
    #[test]
    fn no_function_of_the_driver_is_called_unseen() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/device");
        let mut seen = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            for after in text.split("sys::cu").skip(1) {
                let end = after.find(|c: char| !(c.is_alphanumeric() || c == '_'));
                let name = format!("cu{}", &after[..end.unwrap_or(after.len())]);
                assert!(
                    DRIVER_FUNCTIONS.contains(&name.as_str()) || name == "cu",
                    "{name}"
                );
                seen += 1;
            }
        }
        assert!(seen > 20, "{seen}");
    }
}
