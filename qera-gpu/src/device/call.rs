//! Every foreign call goes through here: no panic of the loader leaves, no result stays unread.

use crate::error::DeviceError;
use core::panic::AssertUnwindSafe;
use cudarc::driver::result::DriverError;
use cudarc::driver::sys::CUresult;
use std::panic::catch_unwind;

/// What a foreign function answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Status {
    /// The driver.
    Driver(CUresult),
    /// cuBLAS: a `cublasStatus_t`.
    Blas(u32),
}

/// `CUBLAS_STATUS_ALLOC_FAILED`.
const BLAS_ALLOC_FAILED: u32 = 3;
/// `CUBLAS_STATUS_NOT_SUPPORTED`; `CUBLAS_STATUS_ARCH_MISMATCH` is 8.
const BLAS_NOT_SUPPORTED: [u32; 2] = [15, 8];

/// Answers of the driver to one call, after which the context works on. All others leave it
/// unusable (a kernel that was stopped or that failed, memory that is broken, a device that is
/// gone), or nobody knows.
const ANSWERS: [CUresult; 9] = [
    CUresult::CUDA_ERROR_INVALID_VALUE,
    CUresult::CUDA_ERROR_MAP_FAILED,
    CUresult::CUDA_ERROR_OPERATING_SYSTEM,
    CUresult::CUDA_ERROR_INVALID_HANDLE,
    CUresult::CUDA_ERROR_NOT_FOUND,
    CUresult::CUDA_ERROR_NOT_READY,
    CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
    CUresult::CUDA_ERROR_NOT_PERMITTED,
    CUresult::CUDA_ERROR_NOT_SUPPORTED,
];

impl Status {
    /// Success, or what the answer means.
    fn check(self, call: &'static str) -> Result<(), DeviceError> {
        let full = DeviceError::OutOfMemory { asked: 0, left: 0 };
        match self {
            Self::Driver(CUresult::CUDA_SUCCESS) | Self::Blas(0) => Ok(()),
            Self::Driver(CUresult::CUDA_ERROR_OUT_OF_MEMORY) | Self::Blas(BLAS_ALLOC_FAILED) => {
                Err(full)
            }
            Self::Blas(code) if BLAS_NOT_SUPPORTED.contains(&code) => {
                Err(DeviceError::Unsupported(call))
            }
            Self::Driver(result) => Err(DeviceError::Call {
                call,
                code: result as u32,
                name: driver_name(DriverError(result)),
                lost: !ANSWERS.contains(&result),
            }),
            Self::Blas(code) => Err(DeviceError::Call {
                call,
                code,
                name: blas_name(code).map(|name| format!("CUBLAS_STATUS_{name}")),
                // Whether the context is gone says the driver.
                lost: false,
            }),
        }
    }

    /// Whether cuBLAS failed, perhaps because the context is gone.
    pub(crate) const fn is_doubtful(self) -> bool {
        !matches!(self, Self::Driver(_) | Self::Blas(0))
    }
}

/// The rest of the name of a `cublasStatus_t`.
const fn blas_name(code: u32) -> Option<&'static str> {
    Some(match code {
        1 => "NOT_INITIALIZED",
        7 => "INVALID_VALUE",
        11 => "MAPPING_ERROR",
        13 => "EXECUTION_FAILED",
        14 => "INTERNAL_ERROR",
        16 => "LICENSE_ERROR",
        _ => return None,
    })
}

/// The driver's name for an error; a driver too broken to name its own errors has none.
pub(crate) fn driver_name(error: DriverError) -> Option<String> {
    let name = || {
        error
            .error_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    guarded(name).ok().and_then(Result::ok)
}

/// Runs foreign code; a panic of its binding is an error.
pub(crate) fn guarded<T>(foreign: impl FnOnce() -> T) -> Result<T, DeviceError> {
    // What a panic of the loader leaves behind is that nothing was called.
    catch_unwind(AssertUnwindSafe(foreign)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let message = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        let message = message.unwrap_or_else(|| "a call into it panicked".to_owned());
        DeviceError::Loader { message }
    })
}

/// Calls and reads the answer.
pub(crate) fn called(
    name: &'static str,
    foreign: impl FnOnce() -> Status,
) -> Result<(), DeviceError> {
    guarded(foreign)?.check(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let of = |status: Status| called("f", || status);
        for good in [Status::Driver(CUresult::CUDA_SUCCESS), Status::Blas(0)] {
            assert_eq!(of(good), Ok(()));
        }
        for full in [
            Status::Driver(CUresult::CUDA_ERROR_OUT_OF_MEMORY),
            Status::Blas(3),
        ] {
            let error = of(full).unwrap_err();
            assert!(matches!(error, DeviceError::OutOfMemory { .. }));
            assert!(!error.is_final());
        }
        for cannot in [Status::Blas(15), Status::Blas(8)] {
            assert_eq!(of(cannot), Err(DeviceError::Unsupported("f")));
        }
        let failed = of(Status::Blas(13)).unwrap_err();
        let said = "f failed with error 13 (CUBLAS_STATUS_EXECUTION_FAILED)";
        assert_eq!(failed.to_string(), said);
        assert_eq!(
            of(Status::Blas(99)).unwrap_err().to_string(),
            "f failed with error 99"
        );
    }

    /// What the driver's description of its errors says of each: whether the context can be used
    /// afterwards.
    #[test]
    fn only_what_poisons_the_context_ends_the_device() {
        let ends = |result| {
            let error = called("f", || Status::Driver(result)).unwrap_err();
            error.is_final()
        };
        for poisons in [
            CUresult::CUDA_ERROR_ILLEGAL_ADDRESS,
            CUresult::CUDA_ERROR_LAUNCH_TIMEOUT,
            CUresult::CUDA_ERROR_LAUNCH_FAILED,
            CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR,
            CUresult::CUDA_ERROR_ECC_UNCORRECTABLE,
            CUresult::CUDA_ERROR_INVALID_CONTEXT,
            CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE,
            CUresult::CUDA_ERROR_UNKNOWN,
        ] {
            assert!(ends(poisons), "{poisons:?}");
        }
        for answers in [
            CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
            CUresult::CUDA_ERROR_INVALID_VALUE,
            CUresult::CUDA_ERROR_OUT_OF_MEMORY,
        ] {
            assert!(!ends(answers), "{answers:?}");
        }
        let of_blas = called("f", || Status::Blas(13)).unwrap_err();
        assert!(!of_blas.is_final(), "the driver says");
    }

    #[test]
    fn a_panic_of_the_loader_is_an_error() {
        let missing = guarded(|| panic!("Missing symbol {}", "cuInit"));
        let error: DeviceError = missing.unwrap_err();
        assert!(error.to_string().contains("Missing symbol cuInit"));
        assert!(error.is_final());
    }
}
