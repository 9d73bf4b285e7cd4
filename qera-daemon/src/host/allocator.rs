//! What the allocator keeps of memory that is free again.

/// Arrays from this size on are mapped, and go back to the system with their owner.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES: i32 = 512 << 10;
/// What stays at the end of the heap for the next array.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: i32 = 8 << 20;

/// Lets glibc give large arrays back at once.
///
/// It raises the size from which it maps arrays to that of the largest one ever freed, up to 32
/// MiB. What lies in its heap thereafter leaves gaps, of other sizes in each run: a peak that no
/// plan can tell, 10 to 20 % above what is in use. Other allocators are left as they are.
pub(crate) fn map_large_arrays() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (setting, bytes) in [
        (libc::M_MMAP_THRESHOLD, MAPPED_BYTES),
        (libc::M_TRIM_THRESHOLD, KEPT_BYTES),
    ] {
        #[expect(unsafe_code, reason = "no safe door to these settings")]
        // SAFETY: `mallopt` takes two integers and changes the allocator's own settings, under its
        // own lock.
        let _ = unsafe { libc::mallopt(setting, bytes) };
    }
}
