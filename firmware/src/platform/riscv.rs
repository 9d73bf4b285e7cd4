//! QEMU's `virt` with a 32-bit RISC-V without floating point: rv32imac, a 16550 UART.

use core::arch::{asm, global_asm};

const UART: usize = 0x1000_0000;

// The stack pointer, a way out of faults, .bss zeroed, the stack painted; .data lies where it is
// loaded.
global_asm!(
    ".section .text.reset, \"ax\"",
    ".globl _start",
    "_start:",
    "la sp, __stack_top",
    "la t0, fault",
    "csrw mtvec, t0",
    "la t0, __bss_start",
    "la t1, __bss_end",
    "1: bgeu t0, t1, 2f",
    "sw zero, 0(t0)",
    "addi t0, t0, 4",
    "j 1b",
    "2: la t1, __stack_top",
    "li t2, 0x5afec0de",
    "3: bgeu t0, t1, 4f",
    "sw t2, 0(t0)",
    "addi t0, t0, 4",
    "j 3b",
    "4: call start",
);

/// # Safety
/// As the operation: it may read and write where `argument` points.
pub unsafe fn semihosting(operation: usize, argument: usize) {
    // SAFETY: the debugger's call, three uncompressed instructions; it changes no register but a0.
    unsafe {
        asm!(
            ".balign 16",
            ".option push",
            ".option norvc",
            "slli x0, x0, 0x1f",
            "ebreak",
            "srai x0, x0, 7",
            ".option pop",
            inout("a0") operation => _,
            in("a1") argument,
            options(nostack)
        );
    }
}

pub fn send(bytes: &[u8]) {
    for byte in bytes {
        let at = |offset| core::ptr::with_exposed_provenance_mut::<u8>(UART + offset);
        // SAFETY: the line status register of the UART.
        while unsafe { at(5).read_volatile() } & 0x20 == 0 {}
        // SAFETY: its transmitter.
        unsafe { at(0).write_volatile(*byte) };
    }
}

/// Instructions since the start (under `-icount`), by the CPU's own counter.
pub fn instructions() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads two counters. They are read so rarely that the lower half does not wrap
    // between.
    unsafe {
        asm!("csrr {0}, minstreth", "csrr {1}, minstret", out(reg) high, out(reg) low, options(nomem, nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}
