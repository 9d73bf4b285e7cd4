//! What was saved and is not what was written any more.

use core::fmt;

use crate::error::Fatal;

/// What is wrong with a file: a sentence that names it, and the tensor where it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage(pub(crate) String);

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why something of a state was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    /// It is not what was written: an older snapshot may be whole.
    #[error("{0}")]
    Damaged(Damage),
    /// Nothing can be said about it, or it must not be read: the disk does not answer, the version
    /// is another.
    #[error("{0}")]
    Fatal(#[from] Fatal),
}

impl From<Damage> for Unread {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}
