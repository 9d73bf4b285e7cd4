//! The file in the watched folder that asks producers for a pause while shards come faster than
//! they are taken. What of it is promised to producers is in docs/recording.md.

use std::io::Result;
use std::path::{Path, PathBuf};

use crate::disk;

/// Its name. It begins with a point, so that it is no shard.
const NAME: &str = ".qera-pause";
/// What it says to a person.
const SAID: &[u8] =
    b"qera-daemon takes shards slower than they come: please add none while this is here\n";

/// The file, and whether it is there.
#[derive(Debug)]
pub(crate) struct PauseFile {
    path: PathBuf,
    above: u64,
    is_asked: bool,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PauseChange {
    /// It is as it was.
    None,
    /// Producers are asked to pause.
    Asked,
    /// They may go on.
    Over,
}

impl PauseFile {
    /// Of a folder: producers are asked to pause while more bytes than that wait. A killed run may
    /// have left the file.
    pub(crate) fn of(folder: &Path, above: u64) -> Self {
        let path = folder.join(NAME);
        Self {
            is_asked: disk::exists(&path),
            path,
            above,
        }
    }

    /// So many bytes of shards wait. Who was asked to pause may go on when no more than half of the
    /// limit do, so that the file does not come and go with each shard.
    ///
    /// # Errors
    /// What the system says; it is tried again with the next shard.
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
        // One that a killed run left, and one that a person took away.
        let mut next = PauseFile::of(&folder, 100);
        std::fs::remove_file(folder.join(".qera-pause")).unwrap();
        assert_eq!(next.adjust(0).unwrap(), PauseChange::Over);
        std::fs::remove_dir(&folder).unwrap();
    }
}
