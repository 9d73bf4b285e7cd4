//! From a path to what it names.

use std::ffi::OsString;
use std::io::{Error, ErrorKind, Result};
use std::path::{Component, Path, PathBuf};

use super::image::{Image, ROOT_INODE};
use super::node::Content;

/// Symlinks that are followed at most.
const LINKS_MAX: usize = 16;

/// The place that a path leads to.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The folder.
    pub(super) folder: u64,
    /// The name in it; empty for the disk's root.
    pub(super) name: OsString,
    /// The file or folder there, if there is one.
    pub(super) inode: Option<u64>,
    /// The path without symlinks.
    pub(super) path: PathBuf,
}

struct Walk<'a> {
    image: &'a Image,
    /// The folders from the root down to the current one.
    folders: Vec<u64>,
    path: PathBuf,
    links: usize,
}

pub(super) fn not_found() -> Error {
    Error::from_raw_os_error(2)
}

/// Follows a path; a symlink at its end only where that is asked.
pub(super) fn walk(image: &Image, path: &Path, follows: bool) -> Result<Place> {
    let mut walk = Walk {
        image,
        folders: vec![ROOT_INODE],
        path: PathBuf::new(),
        links: 0,
    };
    walk.go(path, follows)
}

impl Walk<'_> {
    fn go(&mut self, path: &Path, follows: bool) -> Result<Place> {
        let mut parts: Vec<_> = path.components().collect();
        let Some(last) = parts.pop() else {
            return Ok(self.here(OsString::new(), Some(ROOT_INODE)));
        };
        for part in parts {
            self.enter(part)?;
        }
        let Component::Normal(name) = last else {
            self.enter(last)?;
            let inode = self.folders.last().copied();
            return Ok(self.here(OsString::new(), inode));
        };
        let folder = *self.folders.last().ok_or_else(not_found)?;
        let inode = self.image.folder(folder)?.names.get(name).copied();
        let node = inode.and_then(|inode| self.image.nodes.get(&inode));
        if let (true, Some(Content::Link(to))) = (follows, node.map(|node| &node.content)) {
            let to = to.clone();
            self.follow_once()?;
            return self.go(&to, true);
        }
        Ok(Place {
            folder,
            name: name.to_owned(),
            inode,
            path: self.path.join(name),
        })
    }

    fn here(&self, name: OsString, inode: Option<u64>) -> Place {
        Place {
            folder: ROOT_INODE,
            name,
            inode,
            path: self.path.clone(),
        }
    }

    fn follow_once(&mut self) -> Result<()> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Error::other("too many symlinks"));
        }
        Ok(())
    }

    /// Goes into the folder that a name leads to.
    fn enter(&mut self, part: Component<'_>) -> Result<()> {
        let name = match part {
            Component::Normal(name) => name,
            Component::ParentDir => {
                if self.folders.len() > 1 {
                    self.folders.pop();
                    self.path.pop();
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        let folder = *self.folders.last().ok_or_else(not_found)?;
        let inode = self.image.folder(folder)?.names.get(name);
        let inode = *inode.ok_or_else(not_found)?;
        match &self.image.node(inode)?.content {
            Content::Folder(_) => {
                self.folders.push(inode);
                self.path.push(name);
                Ok(())
            }
            Content::Link(to) => {
                let to = to.clone();
                self.follow_once()?;
                to.components().try_for_each(|part| self.enter(part))
            }
            Content::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }
}
