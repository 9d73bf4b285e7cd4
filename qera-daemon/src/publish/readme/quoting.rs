//! Quotes paths for Python and for shells.

use std::path::Path;

/// A path as a literal of Python.
#[must_use]
pub(crate) fn literal(path: &Path) -> String {
    let text = path.to_string_lossy();
    serde_json::to_string(&text).unwrap_or_default()
}

/// A path as a word of a shell.
#[must_use]
pub(crate) fn shell(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
    if text.chars().all(is_plain) && !text.is_empty() {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
