//! Paths as others take them.

use std::path::Path;

/// A path as Python takes it.
#[must_use]
pub(crate) fn literal(path: &Path) -> String {
    let text = path.to_string_lossy();
    serde_json::to_string(&text).unwrap_or_default()
}

/// A path as a shell takes it.
#[must_use]
pub(crate) fn shell(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
    if text.chars().all(is_plain) && !text.is_empty() {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
