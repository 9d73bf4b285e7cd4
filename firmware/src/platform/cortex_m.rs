//! QEMU's `mps2-an386`: a Cortex-M4F, a UART and a timer of Arm's CMSDK.

use core::arch::{asm, global_asm};

/// CMSDK APB UART 0 and timer 0 (Arm DAI 0386, the memory map).
const UART: usize = 0x4000_4000;
const TIMER: usize = 0x4000_0000;
/// Under `-icount shift=0` an instruction takes a nanosecond, a tick of the 25 MHz timer 40.
const INSTRUCTIONS_PER_TICK: u64 = 40;

// The vector table (stack, reset, faults), then: the floating-point unit on (CPACR), .bss zeroed,
// .data copied, the stack painted.
global_asm!(
    ".section .vectors, \"a\"",
    ".word __stack_top",
    ".word reset",
    ".rept 14",
    ".word fault",
    ".endr",
    ".section .text.reset, \"ax\"",
    ".thumb_func",
    ".globl reset",
    "reset:",
    "ldr r0, =0xe000ed88",
    "ldr r1, [r0]",
    "orr r1, r1, #0xf00000",
    "str r1, [r0]",
    "dsb",
    "isb",
    "ldr r0, =__bss_start",
    "ldr r1, =__bss_end",
    "movs r2, #0",
    "1: cmp r0, r1",
    "bhs 2f",
    "str r2, [r0], #4",
    "b 1b",
    "2: ldr r0, =__data_start",
    "ldr r1, =__data_end",
    "ldr r2, =__data_load",
    "3: cmp r0, r1",
    "bhs 4f",
    "ldr r3, [r2], #4",
    "str r3, [r0], #4",
    "b 3b",
    "4: ldr r0, =__bss_end",
    "ldr r1, =__stack_top",
    "ldr r2, =0x5afec0de",
    "5: cmp r0, r1",
    "bhs 6f",
    "str r2, [r0], #4",
    "b 5b",
    "6: bl start",
    ".ltorg",
);

/// # Safety
/// As the operation: it may read and write where `argument` points.
pub unsafe fn semihosting(operation: usize, argument: usize) {
    // SAFETY: the debugger's call; it changes no register but r0.
    unsafe {
        asm!("bkpt #0xab", inout("r0") operation => _, in("r1") argument, options(nostack));
    }
}

fn write(address: usize, value: u32) {
    // SAFETY: the callers give registers of the devices above.
    unsafe { core::ptr::with_exposed_provenance_mut::<u32>(address).write_volatile(value) }
}

fn read(address: usize) -> u32 {
    // SAFETY: as in `write`.
    unsafe { core::ptr::with_exposed_provenance::<u32>(address).read_volatile() }
}

pub fn send(bytes: &[u8]) {
    write(UART + 0x10, 16); // BAUDDIV
    write(UART + 0x08, 1); // CTRL: transmit
    for byte in bytes {
        while read(UART + 0x04) & 1 != 0 {} // STATE: full
        write(UART, u32::from(*byte));
    }
}

/// Instructions since the first call, in steps of 40.
pub fn instructions() -> u64 {
    if read(TIMER) & 1 == 0 {
        write(TIMER + 0x08, u32::MAX); // RELOAD
        write(TIMER + 0x04, u32::MAX); // VALUE, counts down
        write(TIMER, 1); // CTRL: on
    }
    u64::from(u32::MAX - read(TIMER + 0x04)) * INSTRUCTIONS_PER_TICK
}
