//! Writes events as lines of text or as JSON objects to standard error, with a progress bar on a
//! terminal.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::disk::clock;
use crate::observe::event::Event;
use crate::observe::repeats::Repeats;
use crate::settings::log_format::LogFormat;

/// Writes events; shared by all threads.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    format: LogFormat,
    bar: ProgressBar,
    repeats: Arc<Mutex<Repeats>>,
    /// In a simulated run, the text is kept here.
    #[cfg(test)]
    kept: Option<Arc<Mutex<String>>>,
}

impl Reporter {
    /// A reporter to standard error.
    #[must_use]
    pub(crate) fn new(format: LogFormat) -> Self {
        Self {
            format,
            bar: ProgressBar::hidden(),
            repeats: Arc::default(),
            #[cfg(test)]
            kept: None,
        }
    }

    /// A reporter that keeps its text and writes nothing.
    #[cfg(test)]
    pub(crate) fn keeping(kept: Arc<Mutex<String>>) -> Self {
        Self {
            kept: Some(kept),
            ..Self::new(LogFormat::Text)
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

    /// Counts one step of the bar.
    pub(crate) fn step(&self, doing: &str) {
        self.bar.set_message(doing.to_owned());
        self.bar.inc(1);
    }

    /// Ends the bar, and says what was held back.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
        self.say_repeated(true);
    }

    /// Writes an event. A closed standard error is no reason to stop. As text, a reason that many
    /// shards share is one line a second; as JSON every shard has its own line.
    pub(crate) fn say(&self, event: &Event<'_>) {
        match (self.format, event) {
            (LogFormat::Json, _) => {
                let line = serde_json::to_string(event);
                self.write(&line.unwrap_or_else(|e| e.to_string()));
            }
            (LogFormat::Text, Event::ShardQuarantined { message }) => {
                let said = self.repeats().take(message, clock::now());
                if let Some(message) = said {
                    self.write_text(&Event::ShardQuarantined { message });
                }
            }
            (LogFormat::Text, event) => {
                self.say_repeated(matches!(event, Event::Failed { .. }));
                self.write_text(event);
            }
        }
    }

    /// Says how often reasons were repeated: those that are due, or all at the end.
    pub(crate) fn say_repeated(&self, is_end: bool) {
        let due = self.repeats().due(clock::now(), is_end);
        for message in due {
            self.write_text(&Event::ShardQuarantined { message });
        }
    }

    /// When the next repeated reason is due.
    pub(crate) fn repeated_at(&self) -> Option<Instant> {
        self.repeats().due_at()
    }

    fn repeats(&self) -> MutexGuard<'_, Repeats> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_text(&self, event: &Event<'_>) {
        self.write(&printable(&event.to_string()));
    }

    fn write(&self, line: &str) {
        #[cfg(test)]
        if let Some(kept) = &self.kept {
            *kept.lock().unwrap() += &format!("      {line}\n");
            return;
        }
        self.bar.suspend(|| {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        });
    }
}

/// Escapes control characters, so that names from files can neither forge lines nor drive a
/// terminal.
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
