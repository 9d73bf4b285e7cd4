//! What publication is told: where generations go, how many stay, what else is written, who is
//! told.

use std::path::PathBuf;

use crate::error::Fatal;
use crate::settings::options::Options;
use crate::settings::parse::at_least;
use crate::settings::rounding::Rounding;

/// Where generations go.
#[derive(Debug, Clone)]
pub(crate) struct PublishSettings {
    /// The output folder.
    pub(crate) out: PathBuf,
    /// Generations kept.
    pub(crate) keep_generations: usize,
    /// Whether `OUT/base` is written: where it is asked for, and where W~ depends on the rows, so
    /// that it is to be had nowhere else.
    pub(crate) emit_base: bool,
    /// Command after each publication.
    pub(crate) on_publish: Option<String>,
}

impl PublishSettings {
    /// Checks its options.
    ///
    /// # Errors
    /// [`Fatal::Usage`].
    pub(crate) fn resolve(options: &Options, rounding: Rounding) -> Result<Self, Fatal> {
        let keep_generations = options.keep_generations.unwrap_or_default() as usize;
        at_least("keep-generations", keep_generations, 3)?;
        Ok(Self {
            out: options.out.clone().unwrap_or_default(),
            keep_generations,
            emit_base: options.emit_base.unwrap_or_default() || rounding.uses_rows(),
            on_publish: options.on_publish.clone(),
        })
    }
}
