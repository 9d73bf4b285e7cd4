//! The memory budget: how many bytes a run may plan for, and where that number comes from.

use std::path::{Path, PathBuf};

use crate::error::Fatal;

/// A number of bytes and its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemoryBudget {
    /// Bytes that the plan may use.
    pub(crate) bytes: u64,
    /// For messages: "--memory-budget 4GiB", or "80% of 23.4 GiB available".
    pub(crate) origin: String,
}

impl MemoryBudget {
    /// Parses `4GiB`, `1.5TiB`, `800MB`, `123456` or `80%`.
    ///
    /// # Errors
    /// [`Fatal::Usage`] for anything else, and for a share where the available memory is unknown.
    pub(crate) fn parse(text: &str) -> Result<Self, Fatal> {
        let wrong = || {
            Fatal::Usage(format!(
                "--memory-budget: '{text}' is neither a size (4GiB, 800MB, 123456) nor a share (80%)"
            ))
        };
        if let Some(share) = text.strip_suffix('%') {
            let share: u64 = share.trim().parse().map_err(|_| wrong())?;
            if share == 0 || share > 100 {
                return Err(wrong());
            }
            let available = available_bytes().ok_or_else(|| {
                Fatal::Usage(
                    "--memory-budget: the available memory is not known here, give a size".into(),
                )
            })?;
            return Ok(Self {
                bytes: available / 100 * share,
                origin: format!("{share}% of {} available", format_bytes(available)),
            });
        }
        Ok(Self {
            bytes: parse_bytes(text).ok_or_else(wrong)?,
            origin: format!("--memory-budget {text}"),
        })
    }
}

/// Parses `4GiB`, `1.5 tib`, `800MB` or `123456`; `None` for anything else. Units are read in any
/// case, and a fraction of a byte is left out.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = unit_bytes(&text[number.len()..].to_ascii_lowercase())?;
    let (whole, fraction) = number
        .trim()
        .split_once('.')
        .unwrap_or((number.trim(), "0"));
    let are_digits = |of: &str| !of.is_empty() && of.bytes().all(|b| b.is_ascii_digit());
    if !are_digits(whole) || !are_digits(fraction) || fraction.len() > FRACTION_DIGITS {
        return None;
    }
    let tenths = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let of_fraction = fraction.parse::<u128>().ok()? * u128::from(unit) / tenths;
    let bytes = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    bytes.checked_add(u64::try_from(of_fraction).ok()?)
}

/// Digits behind the point, at most.
const FRACTION_DIGITS: usize = 18;

/// Bytes of a unit in lower case.
fn unit_bytes(unit: &str) -> Option<u64> {
    Some(match unit {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        "tib" | "t" => 1 << 40,
        _ => return None,
    })
}

/// What the process may still use: the system's available memory, or less where a control group
/// above the process (v2 or v1) leaves less.
fn available_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:"))
        .and_then(|l| l.trim().strip_suffix("kB"))
        .and_then(|l| l.trim().parse::<u64>().ok())?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let left = groups
        .lines()
        .filter_map(|line| left_in_groups(line, Path::new("/sys/fs/cgroup")));
    left.chain([kibibytes * 1024])
        .chain(left_in_address_space())
        .min()
}

/// How much address space `ulimit -v` leaves, where it is set.
fn left_in_address_space() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let limit = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max address space"))?;
    let limit: u64 = limit.split_whitespace().next()?.parse().ok()?;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let used = status.lines().find_map(|l| l.strip_prefix("VmSize:"))?;
    let used: u64 = used.split_whitespace().next()?.parse().ok()?;
    Some(limit.saturating_sub(used * 1024))
}

/// The least that any group on the way up leaves, for a line of /proc/self/cgroup: `0::/path` (v2)
/// or `4:memory:/path` (v1).
fn left_in_groups(line: &str, root: &Path) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let (root, limit, used) = match controllers {
        "" => (root.to_path_buf(), "memory.max", "memory.current"),
        c if c.split(',').any(|c| c == "memory") => (
            root.join("memory"),
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
        ),
        _ => return None,
    };
    let own = root.join(path.trim_start_matches('/'));
    let read =
        |file: PathBuf| -> Option<u64> { std::fs::read_to_string(file).ok()?.trim().parse().ok() };
    own.ancestors()
        .take_while(|group| group.starts_with(&root))
        .filter_map(|group| Some(read(group.join(limit))?.saturating_sub(read(group.join(used))?)))
        .min()
}

/// Bytes for a person: `1.5 GiB`.
#[must_use]
pub(crate) fn format_bytes(bytes: u64) -> String {
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
    fn a_limit_of_a_group_above_counts() {
        let root = std::env::temp_dir().join(format!("qera-cgroup-{}", std::process::id()));
        let unit = root.join("system.slice/qera.service");
        std::fs::create_dir_all(&unit).unwrap();
        let set = |group: &Path, max: &str, current: &str| {
            std::fs::write(group.join("memory.max"), max).unwrap();
            std::fs::write(group.join("memory.current"), current).unwrap();
        };
        set(&unit, "max\n", "10\n");
        set(&root.join("system.slice"), "1000\n", "300\n");
        assert_eq!(
            left_in_groups("0::/system.slice/qera.service", &root),
            Some(700)
        );
        set(&unit, "500\n", "100\n");
        assert_eq!(
            left_in_groups("0::/system.slice/qera.service", &root),
            Some(400)
        );
        assert_eq!(left_in_groups("3:cpu:/", &root), None);
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn sizes_shares_and_nonsense() {
        assert_eq!(MemoryBudget::parse("4GiB").unwrap().bytes, 4 << 30);
        assert_eq!(MemoryBudget::parse("123456").unwrap().bytes, 123_456);
        assert_eq!(MemoryBudget::parse("800 MB").unwrap().bytes, 800_000_000);
        assert!(MemoryBudget::parse("50%").unwrap().bytes > 0);
        let sizes = [
            ("1TiB", 1 << 40),
            ("2 tb", 2_000_000_000_000),
            ("1.5GiB", 3 << 29),
            ("0.5k", 512),
            ("4gib", 4 << 30),
            ("18446744073709551615", u64::MAX),
            ("1.999b", 1),
        ];
        for (text, bytes) in sizes {
            assert_eq!(MemoryBudget::parse(text).unwrap().bytes, bytes, "{text}");
        }
        let bad = [
            "",
            "4 parsecs",
            "-1",
            "0%",
            "101%",
            "99999999999GiB",
            "GiB",
            "1.GiB",
            ".5GiB",
            "1e3",
            "1.5.1M",
            "18446744073709551616",
            "16777216TiB",
            "infGiB",
            "0.0000000000000000001T",
        ];
        for bad in bad {
            assert!(
                matches!(MemoryBudget::parse(bad), Err(Fatal::Usage(_))),
                "{bad}"
            );
        }
        assert_eq!(format_bytes(1536), "1.5 KiB");
    }
}
