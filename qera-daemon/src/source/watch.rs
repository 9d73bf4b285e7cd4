//! Wakes the daemon when something may have come: events of the file system serve as hints, and
//! there is a timer in any case.
//!
//! Events may be lost (the queue overflows), merged, or never come (network file systems report
//! none). So nothing is concluded from an event: every wake-up lists the folder (`intake.rs`).
//! Watching begins before the first listing.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::channel::{Receiver, Sender, bounded};
use crate::disk::clock;
use crate::disk::identity::Identity;
use crate::disk::resolve;
use crate::settings::source::WatchMode;

/// File systems that report no events from other hosts.
const WITHOUT_EVENTS: [&str; 16] = [
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "drvfs",
    "fuse",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "smb3",
    "vboxsf",
    "virtiofs",
];
/// Events that follow within this time are taken together.
const GATHER: Duration = Duration::from_millis(20);

/// Wakes the thread that waits for shards.
#[derive(Debug)]
pub(crate) struct Watcher {
    folder: PathBuf,
    mode: WatchMode,
    woken: Receiver<()>,
    wake: Sender<()>,
    events: Option<Events>,
    /// Set when the watched folder itself was removed or renamed. Another folder may then get its
    /// inode.
    gone: Arc<AtomicBool>,
}

/// The events of a folder.
#[derive(Debug)]
struct Events {
    /// The folder's inode. A folder that replaces it under the same name has another one.
    inode: u64,
    /// Events end when this is dropped.
    _watcher: RecommendedWatcher,
}

/// A handle that ends a wait from another thread.
#[derive(Debug, Clone)]
pub(crate) struct Wake(Sender<()>);

impl Wake {
    /// Ends the wait, or the next one.
    pub(crate) fn wake(&self) {
        // If the channel is full, a wake-up is on its way already.
        let _ = self.0.try_send(());
    }
}

impl Watcher {
    /// Begins to watch. `problem` is called where there are no events, with the reason.
    pub(crate) fn start(folder: &Path, mode: WatchMode, problem: impl FnMut(String)) -> Self {
        let (wake, woken) = bounded(1);
        let mut watcher = Self {
            // Events have absolute paths.
            folder: std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf()),
            mode,
            woken,
            wake,
            events: None,
            gone: Arc::default(),
        };
        watcher.renew(problem);
        watcher
    }

    /// A handle for other threads.
    #[must_use]
    pub(crate) fn handle(&self) -> Wake {
        Wake(self.wake.clone())
    }

    /// Waits for a hint, at most until `deadline`.
    pub(crate) fn wait(&self, deadline: Instant) {
        if self.woken.recv_deadline(deadline).is_ok() {
            clock::pause(GATHER);
            let _ = self.woken.try_recv();
        }
    }

    /// Watches anew if the folder was replaced, or could not be watched before.
    pub(crate) fn renew(&mut self, mut problem: impl FnMut(String)) {
        let inode = Identity::at(&self.folder).map(|i| i.inode()).ok();
        let gone = self.gone.swap(false, Ordering::SeqCst);
        let watched = self.events.as_ref().map(|events| events.inode);
        if self.mode == WatchMode::Poll || !gone && watched == inode {
            return;
        }
        self.events = None;
        let Some(inode) = inode else {
            return; // The listing reports that it is not there.
        };
        if self.mode == WatchMode::Auto
            && let Some(kind) = file_system(&self.folder).filter(|k| without_events(k))
        {
            problem(format!(
                "{kind} reports no events: the folder is listed at intervals"
            ));
            self.mode = WatchMode::Poll;
            return;
        }
        match self.events(inode) {
            Ok(events) => self.events = Some(events),
            Err(error) => problem(format!(
                "no events ({}): the folder is listed at intervals",
                explain(&error)
            )),
        }
    }

    fn events(&self, inode: u64) -> notify::Result<Events> {
        let (wake, gone) = (self.handle(), Arc::clone(&self.gone));
        let folder = self.folder.clone();
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                let Ok(event) = event else {
                    return wake.wake();
                };
                let moved = matches!(
                    event.kind,
                    EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
                );
                if moved && event.paths.contains(&folder) {
                    gone.store(true, Ordering::SeqCst);
                }
                if may_matter(&event) {
                    wake.wake();
                }
            })?;
        watcher.watch(&self.folder, RecursiveMode::NonRecursive)?;
        Ok(Events {
            inode,
            _watcher: watcher,
        })
    }
}

/// Whether a file may be complete now. Errors and overflows count as hints, too; data that is being
/// written does not.
fn may_matter(event: &notify::Event) -> bool {
    event.need_rescan()
        || match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Create(_)
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Remove(_)
            | EventKind::Any
            | EventKind::Other => true,
            EventKind::Access(_) | EventKind::Modify(_) => false,
        }
}

fn explain(error: &notify::Error) -> String {
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => {
            "the limit fs.inotify.max_user_watches is reached".into()
        }
        notify::ErrorKind::Io(e) if e.raw_os_error() == Some(24) => {
            "the limit fs.inotify.max_user_instances is reached".into()
        }
        _ => error.to_string(),
    }
}

fn without_events(kind: &str) -> bool {
    let family = kind.split('.').next().unwrap_or(kind);
    WITHOUT_EVENTS.contains(&family)
}

/// The type of the file system that a folder lies on, by the longest mount point above it.
fn file_system(folder: &Path) -> Option<String> {
    let folder = resolve(folder).ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    kind_in(&mounts, &folder)
}

/// proc(5): `36 35 98:0 /root /mount/point options [optional fields] - type source ...`.
fn kind_in(mounts: &str, folder: &Path) -> Option<String> {
    let mut found: Option<(usize, String)> = None;
    for line in mounts.lines() {
        let point = line.split(' ').nth(4)?.replace("\\040", " ");
        let kind = line.split(" - ").nth(1)?.split(' ').next()?;
        // Of two mounts on the same point the later one is visible.
        if folder.starts_with(&point) && found.as_ref().is_none_or(|(n, _)| *n <= point.len()) {
            found = Some((point.len(), kind.to_owned()));
        }
    }
    found.map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::clock::{now, since};

    #[test]
    fn network_file_systems_are_known() {
        let mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                      40 22 0:50 / /mnt/my\\040share rw shared:3 - nfs4 host:/x rw\n\
                      41 22 0:51 / /mnt/sshfs rw - fuse.sshfs host rw\n";
        let kind = |path: &str| kind_in(mounts, Path::new(path)).unwrap();
        assert_eq!(kind("/mnt/my share/activations"), "nfs4");
        assert_eq!(kind("/home/x"), "ext4");
        assert!(without_events(&kind("/mnt/sshfs/a")) && without_events(&kind("/mnt/my share")));
        assert!(!without_events("ext4") && !without_events("overlay"));
    }

    #[test]
    fn a_rename_into_the_folder_wakes() {
        let folder = std::env::temp_dir().join(format!("qera-watch-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("in")).unwrap();
        std::fs::write(folder.join("x"), "x").unwrap();
        let watched = folder.join("in");
        let mut watcher = Watcher::start(&watched, WatchMode::Events, |p| panic!("{p}"));
        let woken = |watcher: &Watcher, seconds| {
            let begun = now();
            let limit = Duration::from_secs(seconds);
            watcher.wait(begun + limit);
            since(begun) < limit
        };
        std::fs::rename(folder.join("x"), watched.join("x")).unwrap();
        assert!(woken(&watcher, 20));
        watcher.handle().wake();
        assert!(woken(&watcher, 20), "by a handle");

        // A folder that was replaced is watched anew.
        std::fs::remove_dir_all(&watched).unwrap();
        std::fs::create_dir(&watched).unwrap();
        while woken(&watcher, 1) {}
        watcher.renew(|p| panic!("{p}"));
        std::fs::write(watched.join("y"), "y").unwrap();
        assert!(woken(&watcher, 20));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
