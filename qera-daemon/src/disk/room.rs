//! Waits for room on a full disk, in a run that goes on until it is ended: whatever is written
//! below the run's folders is tried again each second.
//!
//! Only calls that report a lack of room themselves wait: writing, making files, folders and links,
//! renaming. If a file system reports it only when syncing, what was written is lost, and the run
//! ends.

use core::cell::Cell;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::clock;

/// The pause between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// The runs of this process that wait for room.
static WAITING: Mutex<Vec<Arc<RoomWait>>> = Mutex::new(Vec::new());

thread_local! {
    static AT_ONCE: Cell<bool> = const { Cell::new(false) };
}

/// Is told whether the disk is full now.
type Tell = Box<dyn Fn(bool) + Send + Sync>;

/// How a run waits for room.
pub(crate) struct RoomWait {
    /// The folders below which writing waits.
    pub(crate) folders: Vec<PathBuf>,
    /// The waiting ends when one of these flags is set.
    pub(crate) is_over: [Arc<AtomicBool>; 2],
    /// Is told when the waiting begins and when it ends.
    pub(crate) tell: Tell,
    /// Set where one was ended before there was room.
    pub(crate) cut_off: AtomicBool,
}

impl fmt::Debug for RoomWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomWait")
            .field("folders", &self.folders)
            .finish_non_exhaustive()
    }
}

/// The run waits for room until this is dropped.
#[derive(Debug)]
pub(crate) struct Waits(Arc<RoomWait>);

fn waiting() -> MutexGuard<'static, Vec<Arc<RoomWait>>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RoomWait {
    /// Begins: from now on, writing waits for room.
    pub(crate) fn begin(self) -> Waits {
        let wait = Arc::new(self);
        waiting().push(Arc::clone(&wait));
        Waits(wait)
    }

    fn of(path: &Path) -> Option<Arc<Self>> {
        let holds = |of: &&Arc<Self>| of.folders.iter().any(|folder| path.starts_with(folder));
        waiting().iter().find(holds).cloned()
    }

    fn is_over(&self) -> bool {
        self.is_over.iter().any(|of| of.load(Ordering::SeqCst))
    }
}

impl Waits {
    /// Whether something waited for room in vain.
    pub(crate) fn was_cut_off(&self) -> bool {
        self.0.cut_off.load(Ordering::SeqCst)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        waiting().retain(|of| !Arc::ptr_eq(of, &self.0));
    }
}

/// Does work that needs room at a path. Where there is no room, waits for it if the run does.
pub(crate) fn when_there_is_room<T>(
    path: &Path,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut wait: Option<Arc<RoomWait>> = None;
    loop {
        let answer = attempt();
        if !answer.as_ref().is_err_and(lacks_room) || AT_ONCE.get() {
            if let Some(wait) = wait {
                (wait.tell)(false);
            }
            return answer;
        }
        if wait.is_none() {
            wait = RoomWait::of(path);
            if let Some(wait) = &wait {
                (wait.tell)(true);
            }
        }
        match &wait {
            Some(wait) if !wait.is_over() => clock::pause(PAUSE),
            Some(wait) => {
                wait.cut_off.store(true, Ordering::SeqCst);
                return answer;
            }
            None => return answer,
        }
    }
}

/// Does work that must not wait for room.
pub(crate) fn at_once<T>(work: impl FnOnce() -> T) -> T {
    let before = AT_ONCE.replace(true);
    let done = work();
    AT_ONCE.set(before);
    done
}

fn lacks_room(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts the tries when this many fail, or returns the final error.
    fn tries(path: &str, failing: usize, over_after: usize) -> Result<usize> {
        let mut count = 0;
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::clone(&told);
        let waits = RoomWait {
            folders: vec!["/out".into()],
            is_over: [Arc::clone(&over), Arc::default()],
            tell: Box::new(move |is_full| said.lock().unwrap().push(is_full)),
            cut_off: AtomicBool::new(false),
        };
        let waits = waits.begin();
        let begun = crate::trials::turns::Turns::begin(0);
        let answer = when_there_is_room(Path::new(path), || {
            count += 1;
            over.store(count >= over_after, Ordering::SeqCst);
            if count <= failing {
                Err(Error::from_raw_os_error(28))
            } else {
                Ok(count)
            }
        });
        drop(begun);
        assert_eq!(
            waits.was_cut_off(),
            answer.is_err() && told.lock().unwrap().len() == 1
        );
        let told = told.lock().unwrap();
        assert!(told.is_empty() || told[..1] == [true], "{told:?}");
        assert!(answer.is_err() || told.is_empty() || told[..] == [true, false]);
        answer
    }

    #[test]
    fn it_waits_below_its_folders_until_there_is_room_or_the_run_ends() {
        assert_eq!(tries("/out/a", 0, 99).unwrap(), 1);
        assert_eq!(tries("/out/a", 40, 99).unwrap(), 41);
        assert_eq!(tries("/out/a", 40, 7).unwrap_err().raw_os_error(), Some(28));
        assert!(tries("/elsewhere/a", 1, 99).is_err());
        assert!(at_once(|| tries("/out/a", 1, 99)).is_err());
    }
}
