//! Settings of `verify --replay`: which recorded rows, how many of them, and by which weights.

use std::path::{Path, PathBuf};

use crate::error::Fatal;
use crate::settings::Settings;
use crate::settings::options::Options;
use crate::settings::parse::at_least;

/// The settings of a replay.
#[derive(Debug, Clone)]
pub(crate) struct ReplaySettings {
    /// Folder of activation shards.
    pub(crate) activations: PathBuf,
    /// The most rows of a layer; `None` means all.
    pub(crate) most_rows: Option<usize>,
    /// Settings of W, of the selection, of names and of computing; the others do not count.
    pub(crate) settings: Settings,
}

impl ReplaySettings {
    /// Checks the options of this part.
    ///
    /// # Errors
    /// [`Fatal::Usage`].
    pub(crate) fn resolve(
        options: &Options,
        activations: &Path,
        most_rows: Option<usize>,
    ) -> Result<Self, Fatal> {
        if let Some(rows) = most_rows {
            at_least("replay-rows", rows, 1)?;
        }
        if options.checkpoint.is_none() {
            return Err(Fatal::Usage(
                "--replay: --checkpoint PATH is needed beside it: the weights in full precision, \
                 with whose outputs those of base and adapter are compared"
                    .into(),
            ));
        }
        // Whatever a run would make or write does not count here: W~ and the factors are those on
        // disk.
        let settings = Settings::resolve(&Options {
            checkpoint: options.checkpoint.clone(),
            include: options.include.clone(),
            exclude: options.exclude.clone(),
            map: options.map.clone(),
            skip_broken: options.skip_broken,
            threads: options.threads,
            kernel: options.kernel.clone(),
            log_format: options.log_format.clone(),
            ..Options::defaults()
        })?;
        Ok(Self {
            activations: activations.to_path_buf(),
            most_rows,
            settings,
        })
    }
}
