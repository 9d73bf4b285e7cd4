//! The file in the watched folder that asks producers to pause while shards come faster than they
//! are taken in. docs/recording.md says what producers may rely on.

use std::io::Result;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::disk::presence::exists;

/// The file's name. It begins with a point, so that it is no shard.
const NAME: &str = ".qera-pause";
/// What the file says to a person who opens it.
const SAID: &[u8] =
    b"qera-daemon takes shards slower than they come: please add none while this is here\n";

/// The file, and whether it is there now.
#[derive(Debug)]
pub(crate) struct PauseFile {
    path: PathBuf,
    above: u64,
    is_asked: bool,
}

/// What happened to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PauseChange {
    /// Nothing changed.
    None,
    /// Producers are asked to pause.
    Asked,
    /// Producers may go on.
    Over,
}

impl PauseFile {
    /// The pause file of a folder. Producers are asked to pause while more than `above` bytes wait.
    /// A killed run may have left the file there.
    pub(crate) fn of(folder: &Path, above: u64) -> Self {
        let path = folder.join(NAME);
        Self {
            // Where the disk does not say: it is taken away like one that is there.
            is_asked: exists(&path).unwrap_or(true),
            path,
            above,
        }
    }

    /// Adjusts the file to the bytes of shards that wait. Producers that were asked to pause may go
    /// on when at most half of the limit waits, so that the file does not come and go with each
    /// shard.
    ///
    /// # Errors
    /// The system's error; the next shard tries again.
    pub(crate) fn adjust(&mut self, waiting: u64) -> Result<PauseChange> {
        if !self.is_asked && waiting > self.above {
            disk::write_small(&self.path, SAID)?;
            self.is_asked = true;
            return Ok(PauseChange::Asked);
        }
        if self.is_asked && waiting <= self.above / 2 {
            match disk::remove_file(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => self.is_asked = false,
            }
            return Ok(PauseChange::Over);
        }
        Ok(PauseChange::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_above_the_limit_and_until_half_of_it() {
        let name = format!("qera-pause-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        let is_there = || folder.join(".qera-pause").exists();
        let mut pause = PauseFile::of(&folder, 100);
        for (waiting, change, there) in [
            (100, PauseChange::None, false),
            (101, PauseChange::Asked, true),
            (300, PauseChange::None, true),
            (51, PauseChange::None, true),
            (50, PauseChange::Over, false),
            (0, PauseChange::None, false),
            (500, PauseChange::Asked, true),
        ] {
            assert_eq!(pause.adjust(waiting).unwrap(), change, "{waiting}");
            assert_eq!(is_there(), there, "{waiting}");
        }
        // The file may be left by a killed run, or taken away by a person.
        let mut next = PauseFile::of(&folder, 100);
        std::fs::remove_file(folder.join(".qera-pause")).unwrap();
        assert_eq!(next.adjust(0).unwrap(), PauseChange::Over);
        std::fs::remove_dir(&folder).unwrap();
    }
}
