//! How events are said: as text lines or JSON objects on standard error, with a progress bar on a
//! terminal.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

use crate::observe::event::Event;
use crate::settings::log_format::LogFormat;

/// Where events go. Shared by all threads.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    format: LogFormat,
    bar: ProgressBar,
}

impl Reporter {
    /// A reporter to standard error.
    #[must_use]
    pub(crate) fn new(format: LogFormat) -> Self {
        Self {
            format,
            bar: ProgressBar::hidden(),
        }
    }

    /// Begins a bar of `steps` steps, where standard error is a terminal and the format is text.
    pub(crate) fn begin(&mut self, steps: usize) {
        if self.format == LogFormat::Text && std::io::stderr().is_terminal() {
            self.bar = ProgressBar::new(steps as u64);
            if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} eta {eta}")
            {
                self.bar.set_style(style);
            }
        }
    }

    /// One step done.
    pub(crate) fn step(&self, doing: &str) {
        self.bar.set_message(doing.to_owned());
        self.bar.inc(1);
    }

    /// Ends the bar.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// Writes one event; a closed standard error is not a reason to stop.
    pub(crate) fn say(&self, event: &Event<'_>) {
        let line = match self.format {
            LogFormat::Text => printable(&event.to_string()),
            LogFormat::Json => serde_json::to_string(event).unwrap_or_else(|e| e.to_string()),
        };
        self.bar.suspend(|| {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        });
    }
}

/// Names come from files: control characters are written as escapes, so that they cannot forge
/// lines or drive a terminal.
#[must_use]
pub(crate) fn printable(line: &str) -> String {
    let escape = |c: char| c.escape_default().collect::<String>();
    line.chars()
        .map(|c| {
            if c.is_control() {
                escape(c)
            } else {
                c.to_string()
            }
        })
        .collect()
}
