//! Which generation the command was last run for: `OUT/on_publish.json`. If a run is killed between
//! a publication and its command, the next run runs the command.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{read, replace_json};
use crate::error::Fatal;
use crate::publish::generation_id::GenerationId;

/// The memory of one output folder, in a file.
#[derive(Debug, Clone)]
pub(crate) struct ToldMemory {
    out: PathBuf,
}

/// The content of the file.
#[derive(Debug, Serialize, Deserialize)]
struct ToldRecord {
    told: GenerationId,
}

impl ToldMemory {
    /// The memory of an output folder.
    pub(crate) fn of(out: &Path) -> Self {
        Self {
            out: out.to_path_buf(),
        }
    }

    fn path(&self) -> PathBuf {
        self.out.join("on_publish.json")
    }

    /// Whether the command was run for a generation that is there. A file that is not understood
    /// counts as no: the command runs once more.
    #[must_use]
    pub(crate) fn was_told(&self, generation: u64) -> bool {
        let bytes = read(&self.path()).unwrap_or_default();
        let record: Option<ToldRecord> = serde_json::from_slice(&bytes).ok();
        record.is_some_and(|of| GenerationId::of(&self.out, generation) == Some(of.told))
    }

    /// Notes that the command was run for a generation. If that generation is gone, nothing is
    /// noted.
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
