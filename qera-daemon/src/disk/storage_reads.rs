//! How many of the bytes that a thread read came from the device under the file system, and not
//! from the page cache, by proc(5).

/// The bytes that this thread had fetched from storage at some moment; `None` where the system does
/// not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StorageReads(Option<u64>);

impl StorageReads {
    /// The bytes until now.
    #[must_use]
    pub(crate) fn so_far() -> Self {
        let said = std::fs::read_to_string("/proc/thread-self/io");
        Self(said.ok().and_then(|said| bytes_of(&said)))
    }

    /// The bytes from storage since then, including those read ahead; the largest number where the
    /// system does not tell.
    #[must_use]
    pub(crate) fn bytes_since(self) -> u64 {
        match (self.0, Self::so_far().0) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => u64::MAX,
        }
    }
}

fn bytes_of(said: &str) -> Option<u64> {
    let mut lines = said.lines();
    let bytes = lines.find_map(|line| line.strip_prefix("read_bytes: "))?;
    bytes.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found() {
        let said = "rchar: 3\nwchar: 4\nread_bytes: 4096\nwrite_bytes: 0\n";
        assert_eq!(bytes_of(said), Some(4096));
        assert_eq!(bytes_of("rchar: 3\n"), None);
        assert_eq!(StorageReads(None).bytes_since(), u64::MAX);
    }
}
