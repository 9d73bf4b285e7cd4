//! How much freed memory the allocator keeps for itself.

/// Arrays of this size or more are mapped, and go back to the system when they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES: i32 = 512 << 10;
/// How much free memory stays at the end of the heap for the next array.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: i32 = 8 << 20;

/// Makes glibc give large arrays back at once.
///
/// glibc raises the size from which it maps arrays to that of the largest array ever freed, up to
/// 32 MiB. Arrays that then lie in its heap leave gaps of other sizes in each run, and the peak
/// becomes 10 to 20 % more than what is in use, which no plan can foresee. Other allocators are
/// left as they are.
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
