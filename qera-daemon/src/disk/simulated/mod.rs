//! A disk in memory, for tests: below `/simulated/NAME` lies the disk of this name. It counts what
//! is asked of it, and is cut off or fails where it is told to ([`Trouble`]); what is there
//! afterwards is for [`Image::after`] to say, which knows what was durable (`power.rs`).
//!
//! Calls come from the threads of one run; each is one step under one lock.

mod image;
mod node;
mod power;
mod walk;

use core::time::Duration;
use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Instant;

use crate::disk::clock;
use crate::disk::handle::Opening;
use crate::disk::system::FileStat;

pub(crate) use image::Image;
pub(crate) use power::Cut;

/// The path under which disks in memory lie.
const ROOT: &str = "/simulated";
/// EIO.
pub(crate) const NO_ANSWER: i32 = 5;

/// ENOSPC.
const NO_ROOM: i32 = 28;
/// Calls that need room.
const NEED_ROOM: [&str; 5] = ["write", "mkdir", "link", "rename", "size"];

static DISKS: LazyLock<Mutex<BTreeMap<String, Arc<Disk>>>> = LazyLock::new(Mutex::default);

/// The trouble that a simulated disk makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing.
    None,
    /// From this call on, counted from 1, nothing is answered or changed any more. A write is done
    /// by half.
    Cut {
        /// The call.
        at: u64,
    },
    /// The same, from this sync on, counted from 1.
    CutAtSync {
        /// The sync.
        at: u64,
    },
    /// From this call on, counted from 1, the disk is full for a number of calls.
    Full {
        /// The call.
        at: u64,
        /// How long, by the run's clock.
        lasts: Duration,
    },
    /// Some calls fail.
    Fail {
        /// The first, counted from 1.
        at: u64,
        /// How many.
        times: u64,
        /// The error number of these failures.
        errno: i32,
    },
}

/// A disk in memory, with its calls counted.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    state: Mutex<DiskState>,
}

#[derive(Debug)]
struct DiskState {
    image: Image,
    trouble: Trouble,
    calls: u64,
    syncs: u64,
    is_cut: bool,
    /// Since when it is full.
    full_since: Option<Instant>,
    /// BLAKE3 of every call: its kind and its path.
    trace: blake3::Hasher,
}

/// The disk that holds a path.
pub(crate) fn holding(path: &Path) -> Option<Arc<Disk>> {
    let below = path.strip_prefix(ROOT).ok()?;
    let name = below.components().next()?.as_os_str().to_str()?;
    let disks = DISKS.lock().unwrap_or_else(PoisonError::into_inner);
    disks.get(name).cloned()
}

/// What happens to a call of the disk.
enum Passing {
    /// The call is made.
    Whole,
    /// A write is done by half, and then the power is cut.
    Half,
}

impl Disk {
    /// Puts a disk under a name, in place of the one that was there.
    pub(crate) fn mount(name: &str, image: Image, trouble: Trouble) -> Arc<Self> {
        let disk = Arc::new(Self {
            root: Path::new(ROOT).join(name),
            state: Mutex::new(DiskState {
                image,
                trouble,
                calls: 0,
                syncs: 0,
                is_cut: false,
                full_since: None,
                trace: blake3::Hasher::new(),
            }),
        });
        let mut disks = DISKS.lock().unwrap_or_else(PoisonError::into_inner);
        disks.insert(name.to_owned(), Arc::clone(&disk));
        disk
    }

    /// Takes the disk of this name away.
    pub(crate) fn unmount(name: &str) {
        let mut disks = DISKS.lock().unwrap_or_else(PoisonError::into_inner);
        disks.remove(name);
    }

    /// Somebody else changes what is on it, while it has power.
    pub(crate) fn change<T>(&self, act: impl FnOnce(&mut Image) -> T) -> Option<T> {
        self.with(|state| (!state.is_cut).then(|| act(&mut state.image)))
    }

    /// The folder under which the disk's files lie.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// How many calls came.
    pub(crate) fn calls(&self) -> u64 {
        self.with(|state| state.calls)
    }

    /// Whether it was cut off.
    pub(crate) fn is_cut(&self) -> bool {
        self.with(|state| state.is_cut)
    }

    /// Since when it was full, by the run's clock.
    pub(crate) fn full_since(&self) -> Option<Instant> {
        self.with(|state| state.full_since)
    }

    /// A digest of all calls made so far.
    pub(crate) fn trace(&self) -> String {
        self.with(|state| state.trace.finalize().to_hex().to_string())
    }

    /// A copy of what is on the disk.
    pub(crate) fn image(&self) -> Image {
        self.with(|state| state.image.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut DiskState) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a call, and makes the trouble that is due at it.
    fn call<T>(
        &self,
        kind: &str,
        path: &Path,
        act: impl FnOnce(&mut Image, &Path) -> Result<T>,
    ) -> Result<T> {
        self.pass(kind, path, |image, path, passing| match passing {
            Passing::Whole => act(image, path),
            Passing::Half => Err(Error::from_raw_os_error(NO_ANSWER)),
        })
    }

    fn pass<T>(
        &self,
        kind: &str,
        path: &Path,
        act: impl FnOnce(&mut Image, &Path, Passing) -> Result<T>,
    ) -> Result<T> {
        let no_answer = |errno| Err(Error::from_raw_os_error(errno));
        self.with(|state| {
            if state.is_cut {
                return no_answer(NO_ANSWER);
            }
            let below = path.strip_prefix(&self.root).unwrap_or(path);
            let mut passing = Passing::Whole;
            state.calls += 1;
            state.syncs += u64::from(kind == "sync");
            state.trace.update(kind.as_bytes());
            state.trace.update(below.as_os_str().as_encoded_bytes());
            match state.trouble {
                Trouble::Cut { at } if state.calls == at => {
                    state.is_cut = true;
                    passing = Passing::Half;
                }
                Trouble::CutAtSync { at } if state.syncs == at => {
                    state.is_cut = true;
                    return no_answer(NO_ANSWER);
                }
                Trouble::Fail { at, times, errno }
                    if state.calls >= at && state.calls < at.saturating_add(times) =>
                {
                    return no_answer(errno);
                }
                Trouble::Full { at, lasts } if state.calls >= at && NEED_ROOM.contains(&kind) => {
                    let since = *state.full_since.get_or_insert_with(clock::now);
                    if clock::since(since) < lasts {
                        return no_answer(NO_ROOM);
                    }
                }
                _ => {}
            }
            act(&mut state.image, below, passing)
        })
    }

    pub(crate) fn stat(&self, path: &Path, follows: bool) -> Result<FileStat> {
        self.call("stat", path, |image, path| image.stat(path, follows))
    }

    pub(crate) fn entries(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let names = self.call("list", folder, |image, path| image.names(path))?;
        Ok(names.into_iter().map(|name| folder.join(name)).collect())
    }

    pub(crate) fn canonical(&self, path: &Path) -> Result<PathBuf> {
        let below = self.call("resolve", path, |image, path| image.canonical(path))?;
        Ok(self.root.join(below))
    }

    pub(crate) fn read_link(&self, link: &Path) -> Result<PathBuf> {
        self.call("read link", link, |image, path| image.read_link(path))
    }

    pub(crate) fn symlink(&self, target: &Path, link: &Path) -> Result<()> {
        self.call("link", link, |image, path| image.symlink(target, path))
    }

    pub(crate) fn create_folder(&self, path: &Path, mode: u32) -> Result<()> {
        self.call("mkdir", path, |image, path| image.create_folder(path, mode))
    }

    pub(crate) fn set_mode(&self, path: &Path, mode: u32) -> Result<()> {
        self.call("mode", path, |image, path| image.set_mode(path, mode))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let from = from.strip_prefix(&self.root).unwrap_or(from).to_path_buf();
        self.call("rename", to, |image, to| image.rename(&from, to))
    }

    pub(crate) fn remove_file(&self, path: &Path) -> Result<()> {
        self.call("unlink", path, |image, path| image.remove(path, false))
    }

    pub(crate) fn remove_folder(&self, path: &Path) -> Result<()> {
        self.call("unlink", path, |image, path| image.remove(path, true))
    }

    /// One call for each name that goes, as on a real disk.
    pub(crate) fn remove_tree(&self, path: &Path) -> Result<()> {
        for entry in self.entries(path)? {
            match self.stat(&entry, false)?.kind {
                crate::disk::system::FileKind::Folder => self.remove_tree(&entry)?,
                _ => self.remove_file(&entry)?,
            }
        }
        self.remove_folder(path)
    }

    pub(crate) fn open(self: Arc<Self>, path: &Path, opening: Opening) -> Result<SimulatedFile> {
        let inode = self.call("open", path, |image, path| image.open(path, opening))?;
        Ok(SimulatedFile {
            path: path.to_path_buf(),
            inode,
            opening,
            at: Mutex::new(0),
            disk: self,
            is_locked: Mutex::new(false),
        })
    }
}

/// A file that is open, or a folder.
#[derive(Debug)]
pub(crate) struct SimulatedFile {
    disk: Arc<Disk>,
    path: PathBuf,
    inode: u64,
    opening: Opening,
    /// The position at which the next write goes.
    at: Mutex<usize>,
    is_locked: Mutex<bool>,
}

impl SimulatedFile {
    fn call<T>(&self, kind: &str, act: impl FnOnce(&mut Image) -> Result<T>) -> Result<T> {
        self.disk.call(kind, &self.path, |image, _| act(image))
    }

    pub(crate) fn stat(&self) -> Result<FileStat> {
        self.call("stat", |image| image.stat_of(self.inode))
    }

    pub(crate) fn set_mode(&self, mode: u32) -> Result<()> {
        self.call("mode", |image| image.set_mode_of(self.inode, mode))
    }

    pub(crate) fn read_at(&self, buffer: &mut [u8], start: u64) -> Result<usize> {
        self.call("read", |image| image.read_at(self.inode, buffer, start))
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Result<usize> {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        self.disk.pass("write", &self.path, |image, _, passing| {
            if matches!(self.opening, Opening::Append(_)) {
                *at = image.length(self.inode)?;
            }
            let part = match passing {
                Passing::Whole => bytes,
                Passing::Half => &bytes[..bytes.len() / 2],
            };
            image.write_at(self.inode, part, *at)?;
            *at += part.len();
            match passing {
                Passing::Whole => Ok(part.len()),
                Passing::Half => Err(Error::from_raw_os_error(NO_ANSWER)),
            }
        })
    }

    pub(crate) fn set_len(&self, bytes: u64) -> Result<()> {
        self.call("size", |image| image.set_len(self.inode, bytes))
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.call("sync", |image| image.sync(self.inode))
    }

    pub(crate) fn lock(&self) -> Result<bool> {
        let taken = self.call("lock", |image| image.lock(self.inode))?;
        *self
            .is_locked
            .lock()
            .unwrap_or_else(PoisonError::into_inner) |= taken;
        Ok(taken)
    }

    /// All bytes of the file.
    pub(crate) fn all_bytes(&self) -> Result<Vec<u8>> {
        self.call("map", |image| {
            let mut bytes = vec![0; image.length(self.inode)?];
            image.read_at(self.inode, &mut bytes, 0)?;
            Ok(bytes)
        })
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        if *self
            .is_locked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
        {
            self.disk.with(|state| state.image.unlock(self.inode));
        }
    }
}
