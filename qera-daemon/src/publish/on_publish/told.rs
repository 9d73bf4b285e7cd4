//! Which generation the command was last run for, on disk: `OUT/on_publish.json`. A run that was
//! killed between a publication and its command leaves it to the next one.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{read, replace_json};
use crate::error::Fatal;
use crate::publish::generation_id::GenerationId;

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct ToldMemory {
    out: PathBuf,
}

/// What it holds.
#[derive(Debug, Serialize, Deserialize)]
struct ToldRecord {
    told: GenerationId,
}

impl ToldMemory {
    /// That of an output folder.
    pub(crate) fn of(out: &Path) -> Self {
        Self {
            out: out.to_path_buf(),
        }
    }

    fn path(&self) -> PathBuf {
        self.out.join("on_publish.json")
    }

    /// Whether the command has had its attempts for a generation that is there. A file that is not
    /// understood says nothing: the command runs once more.
    #[must_use]
    pub(crate) fn was_told(&self, generation: u64) -> bool {
        let bytes = read(&self.path()).unwrap_or_default();
        let record: Option<ToldRecord> = serde_json::from_slice(&bytes).ok();
        record.is_some_and(|of| GenerationId::of(&self.out, generation) == Some(of.told))
    }

    /// The command has had its attempts; of a generation that is gone there is nothing to remember.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn remember(&self, generation: u64) -> Result<(), Fatal> {
        match GenerationId::of(&self.out, generation) {
            Some(told) => replace_json(&self.path(), &ToldRecord { told }),
            None => Ok(()),
        }
    }
}
