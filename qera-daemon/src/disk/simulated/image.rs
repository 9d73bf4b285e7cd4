//! What is on a disk, and what the calls do to it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

use super::node::{Content, FileContent, FolderContent, NameStep, Node};
use super::walk::{Place, not_found, walk};
use crate::disk::handle::Opening;
use crate::disk::system::{FileKind, FileStat};

/// The number of the folder that all others lie in.
pub(super) const ROOT_INODE: u64 = 1;
/// Mode of what is made by the umask.
const FILE_MODE: u32 = 0o644;

/// All files and folders of a disk.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(super) nodes: BTreeMap<u64, Node>,
    next: u64,
    /// Ticks with each change.
    pub(super) clock: i64,
}

impl Default for Image {
    fn default() -> Self {
        let root = Node {
            content: Content::Folder(FolderContent::default()),
            mode: 0o755,
            modified: 0,
            is_locked: false,
        };
        Self {
            nodes: BTreeMap::from([(ROOT_INODE, root)]),
            next: ROOT_INODE + 1,
            clock: 1_000_000,
        }
    }
}

impl Image {
    pub(super) fn node(&self, inode: u64) -> Result<&Node> {
        self.nodes.get(&inode).ok_or_else(not_found)
    }

    fn node_mut(&mut self, inode: u64) -> Result<&mut Node> {
        self.clock += 1;
        let clock = self.clock;
        let node = self.nodes.get_mut(&inode).ok_or_else(not_found)?;
        node.modified = clock;
        Ok(node)
    }

    pub(super) fn folder(&self, inode: u64) -> Result<&FolderContent> {
        match &self.node(inode)?.content {
            Content::Folder(folder) => Ok(folder),
            _ => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn change(&mut self, folder: u64, number: u64, step: NameStep) -> Result<()> {
        match &mut self.node_mut(folder)?.content {
            Content::Folder(of) => of.change(number, step),
            _ => return Err(ErrorKind::NotADirectory.into()),
        }
        Ok(())
    }

    fn file(&self, inode: u64) -> Result<&FileContent> {
        match &self.node(inode)?.content {
            Content::File(file) => Ok(file),
            Content::Folder(_) => Err(ErrorKind::IsADirectory.into()),
            Content::Link(_) => Err(not_found()),
        }
    }

    fn file_mut(&mut self, inode: u64) -> Result<&mut FileContent> {
        match &mut self.node_mut(inode)?.content {
            Content::File(file) => Ok(file),
            _ => Err(ErrorKind::IsADirectory.into()),
        }
    }

    fn found(&self, path: &Path, follows: bool) -> Result<u64> {
        walk(self, path, follows)?.inode.ok_or_else(not_found)
    }

    /// Adds something where nothing is.
    fn add(&mut self, place: &Place, content: Content, mode: u32) -> Result<u64> {
        if place.inode.is_some() {
            return Err(Error::from_raw_os_error(17)); // EEXIST
        }
        let inode = self.next;
        self.next += 1;
        self.clock += 1;
        let node = Node {
            content,
            mode,
            modified: self.clock,
            is_locked: false,
        };
        self.nodes.insert(inode, node);
        let put = NameStep::Put(place.name.clone(), inode);
        self.change(place.folder, inode, put)?;
        Ok(inode)
    }

    pub(super) fn stat(&self, path: &Path, follows: bool) -> Result<FileStat> {
        self.stat_of(self.found(path, follows)?)
    }

    pub(super) fn stat_of(&self, inode: u64) -> Result<FileStat> {
        let node = self.node(inode)?;
        let kind = match node.content {
            Content::File(_) => FileKind::File,
            Content::Folder(_) => FileKind::Folder,
            Content::Link(_) => FileKind::Link,
        };
        let bytes = match &node.content {
            Content::File(file) => file.bytes.len() as u64,
            _ => 0,
        };
        Ok(FileStat {
            kind,
            bytes,
            mode: node.mode,
            device: 1,
            inode,
            modified_seconds: node.modified,
            modified_nanoseconds: 0,
        })
    }

    pub(super) fn names(&self, folder: &Path) -> Result<Vec<OsString>> {
        let folder = self.folder(self.found(folder, true)?)?;
        Ok(folder.names.keys().cloned().collect())
    }

    pub(super) fn canonical(&self, path: &Path) -> Result<PathBuf> {
        let place = walk(self, path, true)?;
        place.inode.map(|_| place.path).ok_or_else(not_found)
    }

    pub(super) fn read_link(&self, link: &Path) -> Result<PathBuf> {
        match &self.node(self.found(link, false)?)?.content {
            Content::Link(to) => Ok(to.clone()),
            _ => Err(ErrorKind::InvalidInput.into()),
        }
    }

    pub(super) fn symlink(&mut self, target: &Path, link: &Path) -> Result<()> {
        let place = walk(self, link, false)?;
        let content = Content::Link(target.to_path_buf());
        self.add(&place, content, 0o777).map(drop)
    }

    pub(super) fn create_folder(&mut self, path: &Path, mode: u32) -> Result<()> {
        let place = walk(self, path, false)?;
        let content = Content::Folder(FolderContent::default());
        self.add(&place, content, mode).map(drop)
    }

    pub(super) fn set_mode(&mut self, path: &Path, mode: u32) -> Result<()> {
        self.set_mode_of(self.found(path, true)?, mode)
    }

    pub(super) fn set_mode_of(&mut self, inode: u64, mode: u32) -> Result<()> {
        let node = self.nodes.get_mut(&inode).ok_or_else(not_found)?;
        node.mode = mode;
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<()> {
        let source = walk(self, from, false)?;
        let inode = source.inode.ok_or_else(not_found)?;
        let target = walk(self, to, false)?;
        if let Some(there) = target.inode
            && let Content::Folder(folder) = &self.node(there)?.content
            && !folder.names.is_empty()
        {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        self.clock += 1;
        let number = self.next;
        self.next += 1;
        // A rename changes no file: its time stays.
        let modified = self.node(inode)?.modified;
        if source.folder == target.folder {
            let step = NameStep::Rename {
                from: source.name,
                to: target.name,
                inode,
            };
            self.change(source.folder, number, step)?;
        } else {
            let put = NameStep::Put(target.name, inode);
            self.change(target.folder, number, put)?;
            let away = NameStep::MoveAway(source.name);
            self.change(source.folder, number, away)?;
        }
        self.node_mut(inode)?.modified = modified;
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path, is_folder: bool) -> Result<()> {
        let place = walk(self, path, false)?;
        let inode = place.inode.ok_or_else(not_found)?;
        match (&self.node(inode)?.content, is_folder) {
            (Content::Folder(folder), true) if !folder.names.is_empty() => {
                return Err(ErrorKind::DirectoryNotEmpty.into());
            }
            (Content::Folder(_), false) => return Err(ErrorKind::IsADirectory.into()),
            (Content::File(_) | Content::Link(_), true) => {
                return Err(ErrorKind::NotADirectory.into());
            }
            _ => {}
        }
        let number = self.next;
        self.next += 1;
        self.change(place.folder, number, NameStep::Remove(place.name))
    }

    pub(super) fn open(&mut self, path: &Path, opening: Opening) -> Result<u64> {
        let place = walk(self, path, true)?;
        let new = |mode| Some((Content::File(FileContent::default()), mode));
        let made = match (opening, place.inode) {
            (Opening::Read | Opening::Lock, None) => return Err(not_found()),
            (Opening::NewLock, Some(_)) => return Err(Error::from_raw_os_error(17)),
            (Opening::NewLock, None) => new(FILE_MODE),
            (Opening::Write(mode), None) => new(mode.unwrap_or(FILE_MODE)),
            (Opening::Append(mode), None) => new(mode),
            (_, Some(_)) => None,
        };
        if let Some((content, mode)) = made {
            return self.add(&place, content, mode);
        }
        let inode = place.inode.ok_or_else(not_found)?;
        if let Opening::Write(_) = opening {
            self.file_mut(inode)?.bytes.clear();
        }
        Ok(inode)
    }

    pub(super) fn length(&self, inode: u64) -> Result<usize> {
        self.file(inode).map(|file| file.bytes.len())
    }

    pub(super) fn read_at(&self, inode: u64, buffer: &mut [u8], start: u64) -> Result<usize> {
        let bytes = &self.file(inode)?.bytes;
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let rest = bytes.get(start..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    pub(super) fn write_at(&mut self, inode: u64, bytes: &[u8], at: usize) -> Result<()> {
        let own = &mut self.file_mut(inode)?.bytes;
        let end = at + bytes.len();
        if own.len() < end {
            own.resize(end, 0);
        }
        own[at..end].copy_from_slice(bytes);
        Ok(())
    }

    pub(super) fn set_len(&mut self, inode: u64, bytes: u64) -> Result<()> {
        let length = usize::try_from(bytes).map_err(Error::other)?;
        self.file_mut(inode)?.bytes.resize(length, 0);
        Ok(())
    }

    pub(super) fn lock(&mut self, inode: u64) -> Result<bool> {
        let node = self.nodes.get_mut(&inode).ok_or_else(not_found)?;
        Ok(!core::mem::replace(&mut node.is_locked, true))
    }

    pub(super) fn unlock(&mut self, inode: u64) {
        if let Some(node) = self.nodes.get_mut(&inode) {
            node.is_locked = false;
        }
    }
}

/// Changes that tests make to a disk themselves. Each is durable as soon as it is made.
impl Image {
    /// Puts a file, and the folders that it lies in.
    pub(crate) fn put(&mut self, path: &str, bytes: &[u8]) {
        let path = Path::new(path);
        let folders: Vec<_> = path.ancestors().skip(1).collect();
        for folder in folders.into_iter().rev().filter(|of| *of != Path::new("")) {
            if self.found(folder, true).is_err() {
                self.create_folder(folder, 0o755).unwrap();
                self.sync_folder_of(folder);
            }
        }
        let inode = self.open(path, Opening::Write(None)).unwrap();
        self.write_at(inode, bytes, 0).unwrap();
        self.sync(inode).unwrap();
        self.sync_folder_of(path);
    }

    /// The bytes of a file.
    pub(crate) fn get(&self, path: &str) -> Option<Vec<u8>> {
        let inode = self.found(Path::new(path), true).ok()?;
        self.file(inode).ok().map(|file| file.bytes.clone())
    }

    /// The names in a folder.
    pub(crate) fn list(&self, path: &str) -> Vec<String> {
        let names = self.names(Path::new(path)).unwrap_or_default();
        names
            .into_iter()
            .map(|name| name.into_string().unwrap())
            .collect()
    }

    /// Removes a file.
    pub(crate) fn take(&mut self, path: &str) {
        self.remove(Path::new(path), false).unwrap();
        self.sync_folder_of(Path::new(path));
    }

    /// Adds all that is on it to a digest.
    pub(crate) fn digest(&self, hasher: &mut blake3::Hasher) {
        hasher.update(format!("{:?}", self.nodes).as_bytes());
    }

    /// Renames a file within its folder.
    pub(crate) fn put_elsewhere(&mut self, from: &str, to: &str) {
        self.rename(Path::new(from), Path::new(to)).unwrap();
        self.sync_folder_of(Path::new(to));
    }

    fn sync_folder_of(&mut self, path: &Path) {
        let folder = walk(self, path, false).unwrap().folder;
        self.sync(folder).unwrap();
    }
}
