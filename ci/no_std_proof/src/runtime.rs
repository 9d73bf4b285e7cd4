//! What an operating system's libraries would have brought: the entry point, the way out, the five
//! memory functions that the compiler calls by name, and the panic handler. The only file here with
//! `unsafe` code.

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

// The kernel enters here, with the stack pointer at the argument count.
#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call {start}", "ud2", start = sym start);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, xzr", "bl {start}", "brk 1", start = sym start);

extern "C" fn start() -> ! {
    exit(crate::run())
}

fn exit(status: i32) -> ! {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: system call 60, exit, touches no memory and does not return.
    unsafe {
        asm!("syscall", in("rax") 60, in("rdi") status, options(noreturn, nostack))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: system call 93, exit, touches no memory and does not return.
    unsafe {
        asm!("svc 0", in("x8") 93, in("x0") status, options(noreturn, nostack))
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(101)
}

/// Named in the unwind tables of the precompiled core; with panic = "abort" nothing ever calls it.
// SAFETY: nothing else in the program defines a symbol of this name.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

// The loops below are volatile: the compiler would otherwise recognise them and replace each by a
// call to itself.

/// # Safety
/// As C's `memcpy`.
// SAFETY: nothing else in the program defines a symbol of this name.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    for at in 0..len {
        // SAFETY: the caller gives `len` readable and `len` writable bytes.
        unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) }
    }
    to
}

/// # Safety
/// As C's `memmove`.
// SAFETY: nothing else in the program defines a symbol of this name.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize) <= (from as usize) {
        // SAFETY: ascending order reads each byte before an overlapping one is written.
        return unsafe { memcpy(to, from, len) };
    }
    for at in (0..len).rev() {
        // SAFETY: the caller gives `len` readable and `len` writable bytes; descending, as the
        // destination lies behind.
        unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) }
    }
    to
}

/// # Safety
/// As C's `memset`.
// SAFETY: nothing else in the program defines a symbol of this name.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    for at in 0..len {
        // SAFETY: the caller gives `len` writable bytes.
        unsafe { to.add(at).write_volatile(byte as u8) }
    }
    to
}

/// # Safety
/// As C's `memcmp`.
// SAFETY: nothing else in the program defines a symbol of this name.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    for at in 0..len {
        // SAFETY: the caller gives `len` readable bytes at both.
        let (a, b) = unsafe { (left.add(at).read_volatile(), right.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// # Safety
/// As C's `bcmp`.
// SAFETY: nothing else in the program defines a symbol of this name.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    // SAFETY: the caller gives `len` readable bytes at both.
    unsafe { memcmp(left, right, len) }
}
