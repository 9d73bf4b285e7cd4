//! What the program takes from where it runs: a console, a serial line, a counter of instructions,
//! the memory of the layer.

#[cfg(target_os = "none")]
mod bare;
#[cfg(all(target_os = "none", target_arch = "arm"))]
mod cortex_m;
#[cfg(not(target_os = "none"))]
mod host;
#[cfg(all(target_os = "none", target_arch = "riscv32"))]
mod riscv;

#[cfg(target_os = "none")]
pub use bare::{Console, memory, stack_peak};
#[cfg(all(target_os = "none", target_arch = "arm"))]
pub use cortex_m::{instructions, send};
#[cfg(not(target_os = "none"))]
pub use host::{Console, instructions, memory, send, stack_peak};
#[cfg(all(target_os = "none", target_arch = "riscv32"))]
pub use riscv::{instructions, send};
