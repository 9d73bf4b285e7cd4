//! Whether there is a device: driver library, driver, the device, in that order.

use crate::device::call::{Status, called, driver_name, guarded};
use crate::device::libraries::check_driver;
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

/// Starts the driver and describes the device of this number. Never panics.
pub(crate) fn find(ordinal: usize) -> Result<Found, Reason> {
    started(|device_count| describe(ordinal, device_count))
}

/// How many devices the driver lists; at least one.
///
/// # Errors
/// [`Reason`].
pub fn device_count() -> Result<usize, Reason> {
    started(|device_count| usize::try_from(device_count).map_err(|_| Reason::NoDevice))
}

/// Starts the driver, and asks for more where it lists some devices.
fn started<T>(more: impl FnOnce(i32) -> Result<T, Reason>) -> Result<T, Reason> {
    check_driver()?;
    let asked = guarded(|| {
        result::init().map_err(|error| failed("cuInit", error))?;
        let device_count = result::device::get_count();
        match device_count.map_err(|error| failed("cuDeviceGetCount", error))? {
            ..=0 => Err(Reason::NoDevice),
            device_count => more(device_count),
        }
    });
    match asked {
        Ok(found) => found,
        Err(DeviceError::Loader { message }) => Err(Reason::Loader { message }),
        Err(other) => Err(Reason::Device(other)),
    }
}

fn describe(ordinal: usize, device_count: i32) -> Result<Found, Reason> {
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
