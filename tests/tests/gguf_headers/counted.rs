//! What a thread has allocated, and the most that it had at one time.

#![allow(
    unsafe_code,
    reason = "an allocator is unsafe to implement; this one passes every call on to the system's"
)]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use std::alloc::System;

/// The system's allocator, counted.
struct Counted;

#[global_allocator]
static COUNTED: Counted = Counted;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let live = LIVE.get() + bytes;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

// SAFETY: memory comes from and goes to `System` with the very arguments that came; counting
// allocates nothing, since the cells are initialized constants without a destructor.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's duties are passed on as they are.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's duties are passed on as they are.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The most bytes that a call on this thread had allocated at one time beyond those before it.
pub(crate) fn peak_of<T>(call: impl FnOnce() -> T) -> Measured<T> {
    let before = LIVE.get();
    PEAK.set(before);
    let value = call();
    Measured {
        value,
        peak: usize::try_from(PEAK.get() - before).unwrap_or(0),
    }
}

/// The result of a call, and the memory that it took.
pub(crate) struct Measured<T> {
    pub(crate) value: T,
    pub(crate) peak: usize,
}

#[test]
fn what_is_allocated_for_a_moment_is_seen() {
    let measured = peak_of(|| {
        drop(core::hint::black_box(vec![0_u8; 1000]));
        core::hint::black_box(vec![0_u8; 700])
    });
    assert_eq!((measured.value.len(), measured.peak), (700, 1000));
    // A capacity that is never used counts as well.
    let measured = peak_of(|| drop(core::hint::black_box(Vec::<u64>::with_capacity(1 << 20))));
    assert_eq!(measured.peak, 8 << 20);
}
