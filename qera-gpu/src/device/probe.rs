//! Whether there is a device: driver library, driver, the device, in that order.

use crate::device::call::{Status, called, driver_name, guarded};
use crate::error::DeviceError;
use crate::probe::{Device, Reason};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute};

/// A device that answers.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) device: Device,
    /// The driver's handle for it.
    pub(crate) handle: sys::CUdevice,
    /// The newest CUDA that the driver knows: major 1000, minor 10.
    pub(crate) driver_version: i32,
}

/// Starts the driver and describes the device of this number. Never panics; where a function is
/// missing from the library, the loader's message also reaches standard error.
pub(crate) fn find(ordinal: usize) -> Result<Found, Reason> {
    // SAFETY: loads, and closes again, a library by its well-known names. Its initialisers are the
    // CUDA driver's own, which every CUDA program runs.
    let present = unsafe { sys::is_culib_present() };
    if !present {
        let searched = ["cuda", "nvcuda"]
            .iter()
            .flat_map(|name| cudarc::get_lib_name_candidates(name))
            .collect();
        return Err(Reason::Library { searched });
    }
    match guarded(|| describe(ordinal)) {
        Ok(found) => found,
        Err(DeviceError::Loader { message }) => Err(Reason::Loader { message }),
        Err(other) => Err(Reason::Device(other)),
    }
}

fn describe(ordinal: usize) -> Result<Found, Reason> {
    result::init().map_err(|error| failed("cuInit", error))?;
    let device_count =
        result::device::get_count().map_err(|error| failed("cuDeviceGetCount", error))?;
    if device_count < 1 {
        return Err(Reason::NoDevice);
    }
    let number = i32::try_from(ordinal)
        .ok()
        .filter(|number| *number < device_count);
    let number = number.ok_or(Reason::Ordinal {
        ordinal,
        device_count,
    })?;
    let handle = result::device::get(number).map_err(|error| failed("cuDeviceGet", error))?;
    let name =
        result::device::get_name(handle).map_err(|error| failed("cuDeviceGetName", error))?;
    // SAFETY: `handle` is what cuDeviceGet returned.
    let memory = unsafe { result::device::total_mem(handle) };
    let memory_bytes = memory.map_err(|error| failed("cuDeviceTotalMem", error))?;
    let attribute = |attribute| {
        // SAFETY: as above.
        let value = unsafe { result::device::get_attribute(handle, attribute) };
        value.map_err(|error| failed("cuDeviceGetAttribute", error))
    };
    let major = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok(Found {
        device: Device {
            name,
            memory_bytes,
            compute_capability: (major, minor),
            device_count,
        },
        handle,
        driver_version: driver_version(),
    })
}

/// 0 where the driver does not say: then the older libraries are tried.
fn driver_version() -> i32 {
    let mut version = 0;
    let asked = called("cuDriverGetVersion", || {
        // SAFETY: `version` outlives the call.
        Status::Driver(unsafe { sys::cuDriverGetVersion(&raw mut version) })
    });
    asked.map_or(0, |()| version)
}

fn failed(call: &'static str, error: DriverError) -> Reason {
    Reason::Driver {
        call,
        code: error.0 as u32,
        name: driver_name(error),
    }
}
