//! Settings of the source: the watched folder, and how a live run deals with it.

use core::time::Duration;
use std::path::PathBuf;

use crate::error::Fatal;
use crate::settings::options::{CONSUMES, Options, WATCH_MODES};
use crate::settings::parse::{above_zero, one_of, seconds};

/// The watched folder.
#[derive(Debug, Clone)]
pub(crate) struct SourceSettings {
    /// `--watch`: folder of activation shards.
    pub(crate) watch: Option<PathBuf>,
    /// `--watch-mode`.
    pub(crate) mode: WatchMode,
    /// `--rescan-interval`.
    pub(crate) rescan: Duration,
    /// `--idle-publish`.
    pub(crate) idle: Duration,
    /// `--consume`.
    pub(crate) consume: Consume,
    /// `--pause-above`, in bytes.
    pub(crate) pause_above: u64,
}

/// `--watch-mode`: how the folder is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchMode {
    /// Events, except on file systems that report none.
    Auto,
    /// By events.
    Events,
    /// By listing at intervals.
    Poll,
}

/// `--consume`: what happens to a shard's file once its contribution is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consume {
    /// It stays.
    Keep,
    /// It is removed.
    Delete,
    /// It goes to `WATCH/.consumed/`.
    Move,
}

impl SourceSettings {
    /// Checks the options of this part.
    ///
    /// # Errors
    /// [`Fatal::Usage`].
    pub(crate) fn resolve(options: &Options) -> Result<Self, Fatal> {
        Ok(Self {
            watch: options.watch.clone(),
            mode: match one_of("watch-mode", options.watch_mode.as_deref(), &WATCH_MODES)? {
                "events" => WatchMode::Events,
                "poll" => WatchMode::Poll,
                _ => WatchMode::Auto,
            },
            rescan: seconds("rescan-interval", options.rescan_interval)?,
            idle: seconds("idle-publish", options.idle_publish)?,
            consume: match one_of("consume", options.consume.as_deref(), &CONSUMES)? {
                "delete" => Consume::Delete,
                "move" => Consume::Move,
                _ => Consume::Keep,
            },
            pause_above: above_zero("pause-above", options.pause_above.as_deref())?,
        })
    }
}
