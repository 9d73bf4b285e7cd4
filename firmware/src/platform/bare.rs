//! What both microcontrollers share: the console and the way out by semihosting, the layer's
//! memory, and how far down the stack went.

use core::cell::UnsafeCell;
use core::fmt;
use core::panic::PanicInfo;

#[cfg(target_arch = "arm")]
use super::cortex_m::semihosting;
#[cfg(target_arch = "riscv32")]
use super::riscv::semihosting;
use crate::layer::Memory;

const WRITE_CHARACTER: usize = 0x03;
const EXIT_EXTENDED: usize = 0x20;
const APPLICATION_EXIT: usize = 0x2_0026;

/// What the start-up code fills the stack with.
const PAINT: u32 = 0x5afe_c0de;

pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: the operation reads the one byte that it is given.
            unsafe { semihosting(WRITE_CHARACTER, (&raw const byte).addr()) };
        }
        Ok(())
    }
}

/// Ends the emulation with a status.
fn exit(status: u8) -> ! {
    let block = [APPLICATION_EXIT, usize::from(status)];
    loop {
        // SAFETY: the operation reads the two words that it is given.
        unsafe { semihosting(EXIT_EXTENDED, (&raw const block).addr()) };
    }
}

/// The start-up code comes here, with memory as the linker meant it.
// SAFETY: nothing else in the program defines a symbol of this name.
#[unsafe(no_mangle)]
extern "C" fn start() -> ! {
    exit(crate::run())
}

/// And here on a fault.
// SAFETY: nothing else in the program defines a symbol of this name.
#[unsafe(no_mangle)]
extern "C" fn fault() -> ! {
    exit(102)
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(101)
}

struct Lent(UnsafeCell<Memory>);

// SAFETY: one thread runs, without interrupts.
unsafe impl Sync for Lent {}

/// The buffer of the layer; asked for once.
pub fn memory() -> &'static mut Memory {
    static MEMORY: Lent = Lent(UnsafeCell::new(Memory::new()));
    // SAFETY: `run` asks once, and nothing else names the static.
    unsafe { &mut *MEMORY.0.get() }
}

// SAFETY: the linker script defines both: the stack's memory lies between them.
unsafe extern "C" {
    static __bss_end: u32;
    static __stack_top: u32;
}

/// Bytes of the stack that were written since the start.
pub fn stack_peak() -> usize {
    let mut at = &raw const __bss_end;
    let top = &raw const __stack_top;
    // SAFETY: between the two symbols of the linker script lies the stack and nothing else.
    while at < top && unsafe { at.read_volatile() } == PAINT {
        // SAFETY: below `top`.
        at = unsafe { at.add(1) };
    }
    top.addr() - at.addr()
}
