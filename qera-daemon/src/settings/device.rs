//! Whether a CUDA device takes part of the work, which one, and how much of its memory; and that
//! device, once it is started.

use core::str::FromStr;
use core::time::Duration;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};

use qera_gpu::{DeviceMemory, check_driver, device_count};
use serde::Serialize;

use crate::error::Fatal;
use crate::host::kernels::Kernel;
use crate::host::offload::accelerator::Accelerator;
use crate::host::offload::opening::{AskedDevice, OpeningError};
use crate::host::offload::placement::Least;
use crate::host::offload::worked::WorkedCounts;
use crate::settings::memory_budget::parse_bytes;
use crate::settings::options::Options;

/// What `--device` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeviceChoice {
    /// None: no library is looked for.
    Cpu,
    /// The first one that passes the self-test, where one does, for what is large.
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
    /// Inputs of whose rows R holds sums from there.
    pub(crate) inputs_summed: usize,
    /// Layers whose latest solve was there.
    pub(crate) layers_solved: usize,
    /// Layers that were rounded there.
    pub(crate) layers_rounded: usize,
}

/// What came of starting it.
#[derive(Debug)]
struct StartedDevice {
    /// None where none is used.
    accelerator: Option<Arc<Accelerator>>,
    /// Why those are not used that were tried before; empty where none was.
    refused: Vec<String>,
}

/// Who waits so long for a driver is told for what.
const PATIENCE: Duration = Duration::from_secs(5);

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

    /// Starts the device, the first time that it is called: whoever computes calls it before. Says
    /// so where that takes long: a driver may not answer at all.
    ///
    /// # Errors
    /// [`Fatal::Usage`] where one was named that cannot be used.
    pub(crate) fn start(&self, kernel: Kernel, say: impl Fn(String) + Sync) -> Result<(), Fatal> {
        let slow = || {
            let seconds = PATIENCE.as_secs();
            say(format!(
                "a CUDA device is being opened, and its driver has not answered for {seconds} s \
                 (--device cpu does without)"
            ));
        };
        let started = self.started.get_or_init(|| {
            if self.choice == DeviceChoice::Cpu || check_driver().is_err() {
                return self.open(kernel);
            }
            told_where_slow(PATIENCE, slow, || self.open(kernel))
        });
        match (self.choice, &started.accelerator) {
            (DeviceChoice::Cuda(number), None) => Err(Fatal::Usage(format!(
                "--device cuda:{number}: cannot be used: {}",
                started.refused.join("; ")
            ))),
            _ => Ok(()),
        }
    }

    fn open(&self, kernel: Kernel) -> StartedDevice {
        let open = |ordinal, least| {
            let memory = self.memory;
            let asked = AskedDevice {
                ordinal,
                memory,
                least,
            };
            asked.open(kernel)
        };
        match self.choice {
            DeviceChoice::Cpu => first_of([].into_iter()),
            DeviceChoice::Cuda(number) => first_of([open(number, Least::NONE)].into_iter()),
            DeviceChoice::Auto => match device_count() {
                Err(reason) => first_of([Err(reason.into())].into_iter()),
                Ok(count) => first_of((0..count).map(|number| {
                    open(number, Least::WORTH).map_err(|reason| OpeningError::Tried {
                        number,
                        reason: reason.into(),
                    })
                })),
            },
        }
    }

    /// Whether work that has no room beside a device is done without it.
    pub(crate) const fn may_do_without(&self) -> bool {
        matches!(self.choice, DeviceChoice::Auto)
    }

    /// The device, where one was started and is used.
    pub(crate) fn accelerator(&self) -> Option<&Arc<Accelerator>> {
        self.started.get()?.accelerator.as_ref()
    }

    /// The device, for a manifest, where something was computed there.
    pub(crate) fn record(&self) -> Option<DeviceRecord> {
        let accelerator = self.accelerator()?;
        let WorkedCounts {
            inputs_summed,
            layers_solved,
            layers_rounded,
        } = accelerator.worked().counts()?;
        Some(DeviceRecord {
            name: accelerator.name(),
            libraries: accelerator.offload.libraries().to_vec(),
            inputs_summed,
            layers_solved,
            layers_rounded,
        })
    }

    /// Why those that were tried are not used, in words; `None` where none was refused.
    pub(crate) fn refused(&self) -> Option<String> {
        let refused = &self.started.get()?.refused;
        (!refused.is_empty()).then(|| refused.join("; "))
    }
}

/// The first that can be used; those behind it are not tried.
fn first_of(tried: impl Iterator<Item = Result<Accelerator, OpeningError>>) -> StartedDevice {
    let mut refused = Vec::new();
    for opened in tried {
        match opened {
            Ok(accelerator) => {
                return StartedDevice {
                    accelerator: Some(Arc::new(accelerator)),
                    refused,
                };
            }
            Err(reason) => refused.push(reason.to_string()),
        }
    }
    StartedDevice {
        accelerator: None,
        refused,
    }
}

/// Does something, and says so once where that takes longer than this.
fn told_where_slow<T>(patience: Duration, say: impl Fn() + Sync, work: impl FnOnce() -> T) -> T {
    let (working, done) = channel::<()>();
    std::thread::scope(|scope| {
        let say = &say;
        scope.spawn(move || {
            if done.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                say();
            }
        });
        let result = work();
        drop(working);
        result
    })
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
            let number = text.strip_prefix("cuda:").and_then(number);
            Ok(DeviceChoice::Cuda(number.ok_or_else(wrong)?))
        }
    }
}

/// A number of digits alone.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
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
    let share = number(share.trim()).filter(|share| (1..=100).contains(share));
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
        for text in [
            "", "gpu", "cuda:", "cuda:-1", "cuda:+0", "cuda: 0", "cuda:x", "CUDA", "rocm",
        ] {
            let message = choice(text).unwrap_err().to_string();
            assert!(message.contains("--device: "), "{message}");
        }
    }

    #[test]
    fn its_memory_is_a_size_or_a_share() {
        assert_eq!(memory("8GiB").unwrap(), DeviceMemory::Bytes(8 << 30));
        assert_eq!(memory("50%").unwrap(), DeviceMemory::Share(50));
        assert_eq!(memory("80 %").unwrap(), DeviceMemory::Share(80));
        for text in ["", "0", "0%", "101%", "+80%", "much", "-1"] {
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
        let start = |of: &DeviceSettings| of.start(Kernel::best(), |_| ());
        assert!(start(&cpu).is_ok() && cpu.accelerator().is_none());
        assert_eq!(cpu.refused(), None);
        let missing = of("cuda:4095");
        let refused = start(&missing).unwrap_err();
        assert_eq!(refused.exit().code(), 2, "{refused}");
        assert!(refused.to_string().starts_with("--device cuda:4095: "));
    }

    /// A driver that does not answer is told of; one that does is not.
    #[test]
    fn only_what_takes_long_is_told() {
        let (said, heard) = channel();
        let forever = Duration::from_secs(1 << 30);
        told_where_slow(forever, || said.send(1).unwrap(), || ());
        // This work is done when somebody has been told.
        let waits = || heard.recv().unwrap();
        let told = told_where_slow(Duration::ZERO, || said.send(2).unwrap(), waits);
        assert_eq!(told, 2);
    }
}
