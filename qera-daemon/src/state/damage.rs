//! Damage is a file that is not what was written. It is told here from a disk that does not answer.

use core::fmt;
use std::io::{Error as IoError, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::Fatal;

/// What is wrong with a file: a sentence that names the file, and the tensor where it is about one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage(pub(crate) String);

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A file that the disk does not give, however often it is asked. Its content is unknown and may be
/// whole.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be read: {action}: {source}", path.display())]
pub(crate) struct NoAnswer {
    path: PathBuf,
    action: &'static str,
    source: IoError,
}

impl NoAnswer {
    /// Wraps a system error with the path and the attempt.
    pub(crate) fn of<'a>(
        path: &'a Path,
        action: &'static str,
    ) -> impl FnOnce(IoError) -> Self + 'a {
        move |source| Self {
            path: path.to_path_buf(),
            action,
            source,
        }
    }

    /// The error that ends the run for this reason.
    fn into_fatal(self) -> Fatal {
        Fatal::io(&self.path, self.action)(self.source)
    }
}

/// Why something of a state was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    /// The snapshot is damaged; an older one may be whole.
    #[error("{0}")]
    Damaged(Damage),
    /// The disk does not answer: that is never taken for damage.
    #[error("{0}")]
    NoAnswer(#[from] NoAnswer),
    /// The snapshot has another version, so it must not be read.
    #[error("{0}")]
    Refused(Fatal),
}

impl From<Damage> for Unread {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

impl Unread {
    /// Why a file could not be opened. A file that is not there is damage of whatever names it.
    pub(crate) fn unopened(path: &Path, error: IoError) -> Self {
        if error.kind() == ErrorKind::NotFound {
            return Damage(format!("{} is missing", path.display())).into();
        }
        NoAnswer::of(path, "open")(error).into()
    }

    /// Where the user accepts that rows are lost (`--accept-loss`), a file that cannot be read is
    /// given up like a damaged one.
    #[must_use]
    pub(crate) fn given_up(self, accept_loss: bool) -> Self {
        match self {
            Self::NoAnswer(of_file) if accept_loss => Damage(of_file.to_string()).into(),
            other => other,
        }
    }
}

/// Tells damage from what ends the run.
///
/// # Errors
/// [`Fatal`] for what is no damage.
pub(crate) fn damage_of(unread: Unread) -> Result<Damage, Fatal> {
    match unread {
        Unread::Damaged(damage) => Ok(damage),
        Unread::NoAnswer(of_file) => Err(of_file.into_fatal()),
        Unread::Refused(fatal) => Err(fatal),
    }
}
