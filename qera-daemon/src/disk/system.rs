//! The calls to the operating system about paths. In tests they have a second arm: paths below
//! `/simulated` lie on a disk in memory, which fails and loses power on purpose (`simulated/`). The
//! program has no such arm: every call goes to the system.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io::Result;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

#[cfg(test)]
use crate::disk::simulated::holding;

/// What kind of file a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// A regular file, which has an end.
    File,
    /// A folder.
    Folder,
    /// A symlink.
    Link,
    /// A pipe, a socket or a device.
    Other,
}

/// The system's description of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStat {
    /// The kind of the file.
    pub(crate) kind: FileKind,
    /// The length of the file.
    pub(crate) bytes: u64,
    /// Who may read, write and execute it.
    pub(crate) mode: u32,
    /// The number of its file system.
    pub(crate) device: u64,
    /// Its number within that file system.
    pub(crate) inode: u64,
    /// When it was last written, in seconds since 1970,
    pub(crate) modified_seconds: i64,
    /// and nanoseconds since then.
    pub(crate) modified_nanoseconds: i64,
}

impl From<&Metadata> for FileStat {
    fn from(metadata: &Metadata) -> Self {
        let kind = match metadata.file_type() {
            of if of.is_file() => FileKind::File,
            of if of.is_dir() => FileKind::Folder,
            of if of.is_symlink() => FileKind::Link,
            _ => FileKind::Other,
        };
        Self {
            kind,
            bytes: metadata.len(),
            mode: metadata.permissions().mode(),
            device: metadata.dev(),
            inode: metadata.ino(),
            modified_seconds: metadata.mtime(),
            modified_nanoseconds: metadata.mtime_nsec(),
        }
    }
}

/// Describes what a path leads to.
pub(crate) fn stat(path: &Path) -> Result<FileStat> {
    #[cfg(test)]
    if let Some(disk) = holding(path) {
        return disk.stat(path, true);
    }
    fs::metadata(path).map(|of| FileStat::from(&of))
}

/// Describes what a path names, even if that is a symlink.
pub(crate) fn stat_link(path: &Path) -> Result<FileStat> {
    #[cfg(test)]
    if let Some(disk) = holding(path) {
        return disk.stat(path, false);
    }
    fs::symlink_metadata(path).map(|of| FileStat::from(&of))
}

/// The paths in a folder, in any order.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    #[cfg(test)]
    if let Some(disk) = holding(folder) {
        return disk.entries(folder);
    }
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    entries.collect()
}

/// The path without symlinks.
pub(crate) fn canonical(path: &Path) -> Result<PathBuf> {
    #[cfg(test)]
    if let Some(disk) = holding(path) {
        return disk.canonical(path);
    }
    fs::canonicalize(path)
}

/// The target of a symlink.
pub(crate) fn read_link(link: &Path) -> Result<PathBuf> {
    #[cfg(test)]
    if let Some(disk) = holding(link) {
        return disk.read_link(link);
    }
    fs::read_link(link)
}

/// Makes a symlink.
pub(crate) fn symlink(target: &Path, link: &Path) -> Result<()> {
    #[cfg(test)]
    if let Some(disk) = holding(link) {
        return disk.symlink(target, link);
    }
    std::os::unix::fs::symlink(target, link)
}

/// Makes a folder.
pub(crate) fn create_folder(path: &Path, mode: u32) -> Result<()> {
    #[cfg(test)]
    if let Some(disk) = holding(path) {
        return disk.create_folder(path, mode);
    }
    DirBuilder::new().mode(mode).create(path)
}

/// Sets who may read, write and execute a file.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    #[cfg(test)]
    if let Some(disk) = holding(path) {
        return disk.set_mode(path, mode);
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Moves a file or folder.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    #[cfg(test)]
    if let Some(disk) = holding(to) {
        return disk.rename(from, to);
    }
    fs::rename(from, to)
}

/// Removes a file or a symlink.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    #[cfg(test)]
    if let Some(disk) = holding(path) {
        return disk.remove_file(path);
    }
    fs::remove_file(path)
}

/// Removes a folder that is empty.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    #[cfg(test)]
    if let Some(disk) = holding(path) {
        return disk.remove_folder(path);
    }
    fs::remove_dir(path)
}

/// Removes a folder with everything in it.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    #[cfg(test)]
    if let Some(disk) = holding(path) {
        return disk.remove_tree(path);
    }
    fs::remove_dir_all(path)
}
