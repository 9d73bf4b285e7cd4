//! The only place of this crate that calls foreign code.
//!
//! cudarc loads the driver library on first use and each function on its first call, and panics
//! when one is not there. So the library's presence is asked for first, and the calls that follow
//! run under `catch_unwind`: a driver that lacks a function becomes a [`Reason`]. (The process must
//! therefore not be built with panic = "abort".)
#![expect(
    unsafe_code,
    reason = "calls into the CUDA driver; each block says why it is sound"
)]

use crate::{Device, Probe, Reason};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute};
use std::panic::catch_unwind;

/// Looks for a CUDA device: driver library, driver, first device, in that order.
///
/// Never panics; where a function is missing from the library, the loader's message also reaches
/// standard error. Takes milliseconds without a device; with one the driver's start may take a
/// second.
#[must_use]
pub fn probe() -> Probe {
    // SAFETY: loads, and closes again, a library by its well-known names. Its initialisers are the
    // CUDA driver's own, which every CUDA program runs.
    let present = unsafe { sys::is_culib_present() };
    if !present {
        let searched = ["cuda", "nvcuda"]
            .iter()
            .flat_map(|name| cudarc::get_lib_name_candidates(name))
            .collect();
        return Probe::Unavailable(Reason::Library { searched });
    }
    match catch_unwind(first_device) {
        Ok(Ok(device)) => Probe::Available(device),
        Ok(Err(reason)) => Probe::Unavailable(reason),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let message = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            let message = message.unwrap_or_else(|| "a call into it panicked".to_owned());
            Probe::Unavailable(Reason::Loader { message })
        }
    }
}

/// Starts the driver and describes its first device.
fn first_device() -> Result<Device, Reason> {
    result::init().map_err(|error| failed("cuInit", error))?;
    let device_count =
        result::device::get_count().map_err(|error| failed("cuDeviceGetCount", error))?;
    if device_count < 1 {
        return Err(Reason::NoDevice);
    }
    let device = result::device::get(0).map_err(|error| failed("cuDeviceGet", error))?;
    let name =
        result::device::get_name(device).map_err(|error| failed("cuDeviceGetName", error))?;
    // SAFETY: `device` is what cuDeviceGet returned.
    let memory = unsafe { result::device::total_mem(device) };
    let memory_bytes = memory.map_err(|error| failed("cuDeviceTotalMem", error))?;
    let attribute = |attribute| {
        // SAFETY: as above.
        let value = unsafe { result::device::get_attribute(device, attribute) };
        value.map_err(|error| failed("cuDeviceGetAttribute", error))
    };
    let major = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok(Device {
        name,
        memory_bytes,
        compute_capability: (major, minor),
        device_count,
    })
}

/// Names a failed call; a driver too broken to name its own error does not hide which call failed.
fn failed(call: &'static str, error: DriverError) -> Reason {
    let named = catch_unwind(|| {
        error
            .error_name()
            .map(|name| name.to_string_lossy().into_owned())
    });
    Reason::Driver {
        call,
        code: error.0 as u32,
        name: named.ok().and_then(Result::ok),
    }
}
