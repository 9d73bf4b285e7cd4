//! What can end a run. The other severity, a shard that is set aside while the run goes on, is
//! a `Refusal`.

use std::path::{Path, PathBuf};

use crate::exit::Exit;

/// A failure that ends the run; [`Fatal::exit`] gives its exit code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Fatal {
    /// A wrong option, or a wrong value in the configuration file.
    #[error("{0}")]
    Usage(String),
    /// A file operation failed.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A tensor was given another number of bytes than its header promises: a defect of qera.
    #[error(
        "{}: tensor '{tensor}': {planned} bytes planned, {written} written (this is a defect, please report it)",
        path.display()
    )]
    Unwritten {
        /// The file that was being written.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The planned number of bytes.
        planned: usize,
        /// The number of bytes that came.
        written: usize,
    },
    /// The checkpoint cannot be used; the text names file, tensor and numbers.
    #[error("checkpoint {}: {reason}", path.display())]
    Checkpoint {
        /// The file or folder at fault.
        path: PathBuf,
        /// What is wrong with the file.
        reason: String,
    },
    /// An imatrix cannot be used; the text names the tensor and the numbers.
    #[error("imatrix {}: {reason}", path.display())]
    Imatrix {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong with the file.
        reason: String,
    },
    /// A layer could not be solved.
    #[error("layer {layer}: {reason}")]
    Solve {
        /// Module name.
        layer: String,
        /// What went wrong.
        reason: Box<dyn core::error::Error + Send + Sync>,
    },
    /// A site's rows could not be folded. This would be a defect.
    #[error("input {site}: {reason}")]
    Fold {
        /// First member of the site.
        site: String,
        /// What went wrong.
        reason: Box<dyn core::error::Error + Send + Sync>,
    },
    /// The folder has no shard, or all were refused. A generation of zeros would replace a good
    /// one.
    #[error("{}: {}; nothing was published", folder.display(), nothing(*refused))]
    NothingUsable {
        /// The watched folder.
        folder: PathBuf,
        /// The number of refused shards.
        refused: usize,
    },
    /// A signal came before a layer had rows, and unread shards have some. Its correction would be
    /// zeros.
    #[error(
        "stopped by a signal while layers that unread shards have rows for had none: nothing was published"
    )]
    Interrupted,
    /// The last generation of a run did not pass its check. An event has named the problems.
    #[error(
        "the last generation did not pass its check and is not published; `current` is what it was"
    )]
    Rejected,
    /// The output folder holds the work of other settings.
    #[error("{}: {reason}", path.display())]
    StateRefused {
        /// The folder.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// The plan needs more than the memory budget.
    #[error(
        "the plan needs {needed} but the memory budget is {budget} ({origin}); `plan` shows where it goes"
    )]
    OverBudget {
        /// The planned peak, formatted.
        needed: String,
        /// The budget, formatted.
        budget: String,
        /// Where the memory budget comes from.
        origin: String,
    },
    /// Another process holds the output folder.
    #[error("{}: in use by another process ({holder})", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote into it.
        holder: String,
    },
    /// A thread panicked: a defect of qera, never of the input.
    #[error("the {thread} thread panicked: {message} (this is a defect, please report it)")]
    Panicked {
        /// The thread's name.
        thread: &'static str,
        /// The panic's message.
        message: String,
    },
}

fn nothing(refused: usize) -> String {
    match refused {
        0 => "holds no shard (*.safetensors) with a row for a selected layer".into(),
        _ => format!("none of its shards gave a row ({refused} refused)"),
    }
}

impl Fatal {
    /// The exit code that belongs to this failure.
    #[must_use]
    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::StateRefused { .. } => Exit::StateRefused,
            Self::OverBudget { .. } => Exit::OverBudget,
            Self::Locked { .. } => Exit::Locked,
            Self::Io { .. }
            | Self::Unwritten { .. }
            | Self::Checkpoint { .. }
            | Self::Imatrix { .. }
            | Self::Solve { .. }
            | Self::Fold { .. }
            | Self::NothingUsable { .. }
            | Self::Interrupted
            | Self::Rejected
            | Self::Panicked { .. } => Exit::Failure,
        }
    }

    /// Why a layer cannot be solved, if that is the failure; other layers may still be solved.
    ///
    /// # Errors
    /// Any other failure, which ends the run.
    pub(crate) fn of_layer(self) -> Result<String, Self> {
        match self {
            Self::Solve { reason, .. } => Ok(reason.to_string()),
            other => Err(other),
        }
    }

    /// Wraps a system error with the path and the attempt: `map_err(Fatal::io(path, "create"))`.
    pub(crate) fn io<'a>(
        path: &'a Path,
        action: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Self::Io {
            path: path.to_path_buf(),
            action,
            source,
        }
    }
}
