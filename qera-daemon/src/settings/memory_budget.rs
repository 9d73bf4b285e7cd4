//! The memory budget: how many bytes a run may plan for, and where that number comes from.

use std::path::Path;

use crate::error::Stop;

/// A number of bytes and its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryBudget {
    /// Bytes that the plan may use.
    pub bytes: u64,
    /// For messages: "--memory-budget 4GiB", or "80% of 23.4 GiB available".
    pub origin: String,
}

impl MemoryBudget {
    /// Parses `4GiB`, `800MB`, `123456` or `80%`.
    ///
    /// # Errors
    /// [`Stop::Usage`] for anything else, and for a share where the available memory is unknown.
    pub fn parse(text: &str) -> Result<Self, Stop> {
        let wrong = || {
            Stop::Usage(format!(
                "--memory-budget: '{text}' is neither a size (4GiB, 800MB, 123456) nor a share (80%)"
            ))
        };
        if let Some(share) = text.strip_suffix('%') {
            let share: u64 = share.trim().parse().map_err(|_| wrong())?;
            if share == 0 || share > 100 {
                return Err(wrong());
            }
            let available = available_bytes().ok_or_else(|| {
                Stop::Usage(
                    "--memory-budget: the available memory is not known here, give a size".into(),
                )
            })?;
            return Ok(Self {
                bytes: available / 100 * share,
                origin: format!("{share}% of {} available", format_bytes(available)),
            });
        }
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit: u64 = match &text[digits.len()..] {
            "" | "B" => 1,
            "kB" | "KB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" | "K" => 1 << 10,
            "MiB" | "M" => 1 << 20,
            "GiB" | "G" => 1 << 30,
            _ => return Err(wrong()),
        };
        let bytes = digits
            .trim()
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(unit))
            .ok_or_else(wrong)?;
        Ok(Self {
            bytes,
            origin: format!("--memory-budget {text}"),
        })
    }
}

/// What the process may still use: the smaller of the system's available memory and what the
/// control group (v2 or v1) leaves.
fn available_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let system = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:"))
        .and_then(|l| l.trim().strip_suffix("kB"))
        .and_then(|l| l.trim().parse::<u64>().ok())?
        * 1024;
    let read = |path: &str| -> Option<u64> {
        std::fs::read_to_string(Path::new(path))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    let group = |limit: &str, used: &str| Some(read(limit)?.saturating_sub(read(used)?));
    [
        group("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        group(
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ]
    .into_iter()
    .flatten()
    .chain([system])
    .min()
}

/// Bytes for a person: `1.5 GiB`.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            let digits = usize::from(unit != "B");
            return format!("{value:.digits$} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_shares_and_nonsense() {
        assert_eq!(MemoryBudget::parse("4GiB").unwrap().bytes, 4 << 30);
        assert_eq!(MemoryBudget::parse("123456").unwrap().bytes, 123_456);
        assert_eq!(MemoryBudget::parse("800 MB").unwrap().bytes, 800_000_000);
        assert!(MemoryBudget::parse("50%").unwrap().bytes > 0);
        for bad in ["", "4 parsecs", "-1", "0%", "101%", "99999999999GiB", "GiB"] {
            assert!(
                matches!(MemoryBudget::parse(bad), Err(Stop::Usage(_))),
                "{bad}"
            );
        }
        assert_eq!(format_bytes(1536), "1.5 KiB");
    }
}
