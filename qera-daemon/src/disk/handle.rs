//! An open file or folder: of the operating system or, in tests, of a disk in memory.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{Error, ErrorKind, Result, Write as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

#[cfg(test)]
use crate::disk::simulated::{SimulatedFile, holding};
use crate::disk::system::FileStat;

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// A file is read, or a folder is synced.
    Read,
    /// A file is written from its first byte on. A missing file is created, with this mode or by
    /// the umask.
    Write(Option<u32>),
    /// A file is read, and written at its end. A missing file is created, with this mode.
    Append(u32),
    /// A lock file is read and written where it is,
    Lock,
    /// or created where there is none.
    NewLock,
}

impl Opening {
    fn options(self) -> OpenOptions {
        let mut options = File::options();
        match self {
            Self::Read => options.read(true),
            Self::Write(None) => options.write(true).create(true).truncate(true),
            Self::Write(Some(mode)) => {
                let options = options.write(true).create(true).truncate(true);
                options.mode(mode)
            }
            Self::Append(mode) => options.read(true).append(true).create(true).mode(mode),
            Self::Lock => options.read(true).write(true),
            Self::NewLock => options.read(true).write(true).create_new(true),
        };
        options
    }
}

/// An open file or folder.
#[derive(Debug)]
pub(crate) enum Handle {
    /// A file of the operating system.
    System(File),
    /// A file of a disk in memory.
    #[cfg(test)]
    Simulated(SimulatedFile),
}

impl Handle {
    /// Opens a file or a folder.
    pub(crate) fn open(path: &Path, opening: Opening) -> Result<Self> {
        #[cfg(test)]
        if let Some(disk) = holding(path) {
            return disk.open(path, opening).map(Self::Simulated);
        }
        opening.options().open(path).map(Self::System)
    }

    /// The operating system's file, if this is one.
    pub(crate) const fn of_system(&self) -> Option<&File> {
        match self {
            Self::System(file) => Some(file),
            #[cfg(test)]
            Self::Simulated(_) => None,
        }
    }

    /// The system's description of the file.
    pub(crate) fn stat(&self) -> Result<FileStat> {
        match self {
            Self::System(file) => file.metadata().map(|of| FileStat::from(&of)),
            #[cfg(test)]
            Self::Simulated(file) => file.stat(),
        }
    }

    /// Sets who may read, write and execute the file.
    pub(crate) fn set_mode(&self, mode: u32) -> Result<()> {
        match self {
            Self::System(file) => file.set_permissions(Permissions::from_mode(mode)),
            #[cfg(test)]
            Self::Simulated(file) => file.set_mode(mode),
        }
    }

    /// Reads some bytes from `start` on; none behind the file's end.
    pub(crate) fn read_at(&self, buffer: &mut [u8], start: u64) -> Result<usize> {
        match self {
            Self::System(file) => file.read_at(buffer, start),
            #[cfg(test)]
            Self::Simulated(file) => file.read_at(buffer, start),
        }
    }

    /// Fills a buffer with bytes from `start` on.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], start: u64) -> Result<()> {
        match self {
            Self::System(file) => file.read_exact_at(buffer, start),
            #[cfg(test)]
            Self::Simulated(file) => match file.read_at(buffer, start)? {
                read if read == buffer.len() => Ok(()),
                _ => Err(ErrorKind::UnexpectedEof.into()),
            },
        }
    }

    /// Writes some bytes behind those written before, or at the end; returns how many.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<usize> {
        match self {
            Self::System(file) => (&*file).write(bytes),
            #[cfg(test)]
            Self::Simulated(file) => file.write(bytes),
        }
    }

    /// Writes all of these bytes.
    pub(crate) fn write_all(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sets the file's length.
    pub(crate) fn set_len(&self, bytes: u64) -> Result<()> {
        match self {
            Self::System(file) => file.set_len(bytes),
            #[cfg(test)]
            Self::Simulated(file) => file.set_len(bytes),
        }
    }

    /// Makes the file's content durable, or the names in a folder.
    pub(crate) fn sync(&self) -> Result<()> {
        match self {
            Self::System(file) => file.sync_all(),
            #[cfg(test)]
            Self::Simulated(file) => file.sync(),
        }
    }

    /// Makes the file's bytes durable.
    pub(crate) fn sync_data(&self) -> Result<()> {
        match self {
            Self::System(file) => file.sync_data(),
            #[cfg(test)]
            Self::Simulated(file) => file.sync(),
        }
    }

    /// Locks the file against everybody else. Returns false where somebody else has locked it.
    pub(crate) fn lock(&self) -> Result<bool> {
        match self {
            Self::System(file) => is_locked(file.try_lock()),
            #[cfg(test)]
            Self::Simulated(file) => file.lock(),
        }
    }

    /// Locks the file against an exclusive lock. Returns false where somebody has one.
    pub(crate) fn lock_shared(&self) -> Result<bool> {
        match self {
            Self::System(file) => is_locked(file.try_lock_shared()),
            #[cfg(test)]
            Self::Simulated(file) => file.lock(),
        }
    }
}

fn is_locked(tried: core::result::Result<(), TryLockError>) -> Result<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err::<bool, Error>(error),
    }
}
