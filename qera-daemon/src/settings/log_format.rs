//! `--log-format`.

use crate::error::Fatal;
use crate::settings::options::{LOG_FORMATS, Options};
use crate::settings::parse::one_of;

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Lines for a person, and a progress bar on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Checks `--log-format` alone: it is needed before the rest, to report the rest.
    ///
    /// # Errors
    /// [`Fatal::Usage`] for an unknown value.
    pub(crate) fn resolve(options: &Options) -> Result<Self, Fatal> {
        Ok(
            match one_of("log-format", options.log_format.as_deref(), &LOG_FORMATS)? {
                "json" => Self::Json,
                _ => Self::Text,
            },
        )
    }
}
