//! Checks that several parts of the settings share.

use core::time::Duration;

use globset::{Glob, GlobMatcher};

use crate::error::Fatal;
use crate::settings::memory_budget::parse_bytes;

pub(crate) fn one_of<'a>(
    option: &str,
    value: Option<&'a str>,
    valid: &[&str],
) -> Result<&'a str, Fatal> {
    let value = value.unwrap_or_default();
    if valid.contains(&value) {
        return Ok(value);
    }
    Err(Fatal::Usage(format!(
        "--{option}: unknown value '{value}', one of {}",
        valid.join(", ")
    )))
}

pub(crate) fn at_least(option: &str, value: usize, least: usize) -> Result<(), Fatal> {
    if value < least {
        return Err(Fatal::Usage(format!(
            "--{option}: must be at least {least}"
        )));
    }
    Ok(())
}

/// Parses a size in bytes, which must be above 0.
pub(crate) fn above_zero(option: &str, value: Option<&str>) -> Result<u64, Fatal> {
    let text = value.unwrap_or_default();
    let bytes = parse_bytes(text).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| {
        Fatal::Usage(format!(
            "--{option}: '{text}' is no size above 0 (1GiB, 800MB, 123456)"
        ))
    })
}

/// Parses seconds: from 0.1, below which the folder would be listed without pause, to a year.
pub(crate) fn seconds(option: &str, value: Option<f64>) -> Result<Duration, Fatal> {
    value
        .filter(|s| (0.1..=31_536_000.0).contains(s))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| Fatal::Usage(format!("--{option}: must be from 0.1 to 31536000 seconds")))
}

pub(crate) fn globs(option: &str, patterns: &[impl AsRef<str>]) -> Result<Vec<GlobMatcher>, Fatal> {
    patterns.iter().map(|p| glob(option, p.as_ref())).collect()
}

pub(crate) fn glob(option: &str, pattern: &str) -> Result<GlobMatcher, Fatal> {
    Glob::new(pattern)
        .map(|glob| glob.compile_matcher())
        .map_err(|e| Fatal::Usage(format!("--{option}: {e}")))
}
