//! What a live run does when the disk is full: it waits for room, says so, and then goes on as if
//! nothing had happened.

use core::sync::atomic::{AtomicBool, Ordering};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::room::{RoomWait, Waits, at_once};
use crate::disk::{self, presence::exists};
use crate::observe::event::Event;
use crate::observe::reporter::Reporter;
use crate::observe::status::DISK_FULL;

/// The file's name as long as there is room.
const SPARE: &str = ".disk-full";

/// Waits until there is room below these folders, or one of the flags is set. Meanwhile a file of
/// the state has another name, by which `status` knows: to rename a file takes no room.
pub(crate) fn wait_for_room(
    state: &Path,
    others: Vec<PathBuf>,
    is_over: [Arc<AtomicBool>; 2],
    reporter: &Reporter,
) -> Waits {
    let (spare, said) = (state.join(SPARE), state.join(DISK_FULL));
    // A killed run may have left the file under that name. If it cannot be renamed, only `status`
    // does not know.
    if exists(&said).unwrap_or(false) {
        let _ = disk::rename(&said, &spare);
    } else {
        let _ = disk::write_private_synced(&spare, b"");
    }
    let (reporter, is_said) = (reporter.clone(), AtomicBool::new(false));
    let tell = move |is_full: bool| {
        if is_said.swap(is_full, Ordering::SeqCst) == is_full {
            return;
        }
        let message = if is_full {
            let _ = at_once(|| disk::rename(&spare, &said));
            "is full: the run waits for room, and tries again each second"
        } else {
            let _ = at_once(|| disk::rename(&said, &spare));
            "has room again: the run goes on"
        };
        reporter.say(&Event::Warning {
            subject: "disk",
            message: message.into(),
        });
    };
    let folders = core::iter::once(state.to_path_buf()).chain(others);
    let wait = RoomWait {
        folders: folders.collect(),
        is_over,
        tell: Box::new(tell),
        cut_off: AtomicBool::new(false),
    };
    wait.begin()
}
