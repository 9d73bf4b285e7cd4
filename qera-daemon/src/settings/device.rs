//! Whether a CUDA device takes part of the work, which one, and how much of its memory; and that
//! device, once it is started.

use std::sync::{Arc, OnceLock};

use serde::Serialize;

use crate::error::Fatal;
use crate::host::kernels::Kernel;
use crate::host::offload::accelerator::Accelerator;
use crate::host::offload::opening::{AskedDevice, DeviceMemory};
use crate::host::offload::placement::Least;
use crate::settings::memory_budget::parse_bytes;
use crate::settings::options::Options;

/// What `--device` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeviceChoice {
    /// None: no library is looked for.
    Cpu,
    /// The first one, where there is one that passes the self-test, for what is large.
    Auto,
    /// The one with this number, for everything.
    Cuda(usize),
}

/// The device of a process.
#[derive(Debug, Clone)]
pub(crate) struct DeviceSettings {
    choice: DeviceChoice,
    memory: DeviceMemory,
    /// Set once, by whoever begins to compute.
    started: Arc<OnceLock<StartedDevice>>,
}

/// A device as a manifest names it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DeviceRecord {
    /// As its driver calls it, its memory and its compute capability.
    pub(crate) name: String,
    /// Driver and libraries that computed on it, with their versions.
    pub(crate) libraries: Vec<String>,
}

/// What came of starting it.
#[derive(Debug)]
enum StartedDevice {
    /// It is used.
    Used(Arc<Accelerator>),
    /// It is not, for this reason; none where nobody asked for one.
    Unused(Option<String>),
}

impl DeviceSettings {
    /// Checks its options.
    ///
    /// # Errors
    /// [`Fatal::Usage`].
    pub(crate) fn resolve(options: &Options) -> Result<Self, Fatal> {
        Ok(Self {
            choice: choice(options.device.as_deref().unwrap_or("auto"))?,
            memory: memory(options.device_memory.as_deref().unwrap_or("80%"))?,
            started: Arc::default(),
        })
    }

    /// Starts the device, the first time that it is called: whoever computes calls it before.
    ///
    /// # Errors
    /// [`Fatal::Usage`] where one was named that cannot be used.
    pub(crate) fn start(&self, kernel: Kernel) -> Result<(), Fatal> {
        let started = self.started.get_or_init(|| self.open(kernel));
        match (self.choice, started) {
            (DeviceChoice::Cuda(number), StartedDevice::Unused(Some(reason))) => Err(Fatal::Usage(
                format!("--device cuda:{number}: cannot be used: {reason}"),
            )),
            _ => Ok(()),
        }
    }

    fn open(&self, kernel: Kernel) -> StartedDevice {
        let (ordinal, least) = match self.choice {
            DeviceChoice::Cpu => return StartedDevice::Unused(None),
            DeviceChoice::Auto => (0, Least::WORTH),
            DeviceChoice::Cuda(number) => (number, Least::NONE),
        };
        let asked = AskedDevice {
            ordinal,
            memory: self.memory,
            least,
        };
        match asked.open(kernel) {
            Ok(accelerator) => StartedDevice::Used(Arc::new(accelerator)),
            Err(reason) => StartedDevice::Unused(Some(reason.to_string())),
        }
    }

    /// The device, where one was started and is used.
    pub(crate) fn accelerator(&self) -> Option<&Arc<Accelerator>> {
        match self.started.get() {
            Some(StartedDevice::Used(accelerator)) => Some(accelerator),
            _ => None,
        }
    }

    /// The device that is used, for a manifest.
    pub(crate) fn record(&self) -> Option<DeviceRecord> {
        self.accelerator().map(|accelerator| DeviceRecord {
            name: accelerator.name(),
            libraries: accelerator.offload.libraries().to_vec(),
        })
    }

    /// Why there is none, in words.
    pub(crate) fn why_none(&self) -> &str {
        match self.started.get() {
            Some(StartedDevice::Unused(Some(reason))) => reason,
            _ => "--device cpu",
        }
    }
}

fn choice(text: &str) -> Result<DeviceChoice, Fatal> {
    let wrong = || {
        Fatal::Usage(format!(
            "--device: '{text}' is none of auto, cpu, cuda, cuda:N"
        ))
    };
    match text {
        "auto" => Ok(DeviceChoice::Auto),
        "cpu" => Ok(DeviceChoice::Cpu),
        "cuda" => Ok(DeviceChoice::Cuda(0)),
        _ => {
            let number = text.strip_prefix("cuda:").ok_or_else(wrong)?;
            let number = number.parse().map_err(|_| wrong())?;
            Ok(DeviceChoice::Cuda(number))
        }
    }
}

fn memory(text: &str) -> Result<DeviceMemory, Fatal> {
    let wrong = || {
        Fatal::Usage(format!(
            "--device-memory: '{text}' is neither a size (8GiB, 800MB, 123456) nor a share (80%)"
        ))
    };
    let Some(share) = text.strip_suffix('%') else {
        let bytes = parse_bytes(text).filter(|bytes| *bytes > 0);
        return Ok(DeviceMemory::Bytes(bytes.ok_or_else(wrong)?));
    };
    let share = share.trim().parse().ok();
    let share = share.filter(|share| (1..=100).contains(share));
    Ok(DeviceMemory::Share(share.ok_or_else(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_in_one_of_four_ways() {
        let named = [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ];
        for (text, expected) in named {
            assert_eq!(choice(text).unwrap(), expected);
        }
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", "rocm"] {
            let message = choice(text).unwrap_err().to_string();
            assert!(message.contains("--device: "), "{message}");
        }
    }

    #[test]
    fn its_memory_is_a_size_or_a_share() {
        assert_eq!(memory("8GiB").unwrap(), DeviceMemory::Bytes(8 << 30));
        assert_eq!(memory("50%").unwrap(), DeviceMemory::Share(50));
        for text in ["", "0", "0%", "101%", "much", "-1"] {
            let message = memory(text).unwrap_err().to_string();
            assert!(message.contains("--device-memory: "), "{message}");
        }
    }

    /// Nothing is started where the CPU was asked for, and a device that is not there is refused
    /// where it was named.
    #[test]
    fn only_what_was_asked_for_is_started() {
        let of = |device: &str| {
            let options = Options {
                device: Some(device.into()),
                ..Options::defaults()
            };
            DeviceSettings::resolve(&options).unwrap()
        };
        let cpu = of("cpu");
        assert!(cpu.start(Kernel::best()).is_ok() && cpu.accelerator().is_none());
        assert_eq!(cpu.why_none(), "--device cpu");
        let missing = of("cuda:4095");
        let refused = missing.start(Kernel::best()).unwrap_err();
        assert_eq!(refused.exit().code(), 2, "{refused}");
        assert!(refused.to_string().starts_with("--device cuda:4095: "));
    }
}
