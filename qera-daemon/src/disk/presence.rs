//! What a path names. Only where the system says that nothing is there, nothing is: a question that
//! the disk does not answer is an error that names the path, and nobody takes it for a no.

use std::io::Result as IoResult;
use std::path::{Path, PathBuf};

use crate::disk::system::{self, FileKind, FileStat, stat, stat_link};
use crate::disk::tried::{says_that_nothing_is_there, tried};
use crate::error::Fatal;

/// Whether it names anything; a symlink that leads nowhere names nothing.
///
/// # Errors
/// [`Fatal::Io`] where the disk does not say.
pub(crate) fn exists(path: &Path) -> Result<bool, Fatal> {
    kind(path, stat).map(|of| of.is_some())
}

/// Whether it names a file that can be read to its end, or leads to one: no folder, pipe or socket.
///
/// # Errors
/// As for [`exists`].
pub(crate) fn is_file(path: &Path) -> Result<bool, Fatal> {
    kind(path, stat).map(|of| of == Some(FileKind::File))
}

/// As [`is_file`], for whoever goes by what the system said.
///
/// # Errors
/// What the system says, also that nothing is there.
pub(crate) fn is_surely_file(path: &Path) -> IoResult<bool> {
    tried(|| stat(path)).map(|of| of.kind == FileKind::File)
}

/// Whether it names a folder, or leads to one.
///
/// # Errors
/// As for [`exists`].
pub(crate) fn is_folder(path: &Path) -> Result<bool, Fatal> {
    kind(path, stat).map(|of| of == Some(FileKind::Folder))
}

/// Whether it names a symlink.
///
/// # Errors
/// As for [`exists`].
pub(crate) fn is_link(path: &Path) -> Result<bool, Fatal> {
    kind(path, stat_link).map(|of| of == Some(FileKind::Link))
}

/// Whether it names something that is no symlink.
///
/// # Errors
/// As for [`exists`].
pub(crate) fn is_in_place_of_a_link(path: &Path) -> Result<bool, Fatal> {
    kind(path, stat_link).map(|of| of.is_some_and(|of| of != FileKind::Link))
}

/// Where a symlink points; `None` where there is none.
///
/// # Errors
/// As for [`exists`].
pub(crate) fn target_of(link: &Path) -> Result<Option<PathBuf>, Fatal> {
    if !is_link(link)? {
        return Ok(None);
    }
    match tried(|| system::read_link(link)) {
        Err(error) if says_that_nothing_is_there(&error) => Ok(None), // It went meanwhile.
        target => target.map(Some).map_err(Fatal::io(link, "read")),
    }
}

/// What is there; `None` where nothing is.
fn kind(path: &Path, ask: fn(&Path) -> IoResult<FileStat>) -> Result<Option<FileKind>, Fatal> {
    match tried(|| ask(path)) {
        Err(error) if says_that_nothing_is_there(&error) => Ok(None),
        found => found
            .map(|of| Some(of.kind))
            .map_err(Fatal::io(path, "look at")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::simulated::{Disk, Image, Trouble};
    use crate::trials::turns::Turns;

    type Question = fn(&Path) -> Result<bool, Fatal>;

    /// Every question about a path on a disk that fails from the first call on, so often.
    fn ask(times: u64, errno: i32, path: &str) -> [Result<bool, Fatal>; 6] {
        let questions: [Question; 6] = [
            exists,
            is_file,
            is_folder,
            is_link,
            is_in_place_of_a_link,
            |link| target_of(link).map(|of| of.is_some()),
        ];
        questions.map(|question| {
            let mut image = Image::default();
            image.put("folder/file", b"1");
            let disk = Disk::mount("presence", image, Trouble::None);
            let link = disk.root().join("folder/link");
            disk.symlink(Path::new("file"), &link).unwrap();
            let trouble = Trouble::Fail {
                at: 1,
                times,
                errno,
            };
            let disk = Disk::mount("presence", disk.image(), trouble);
            let _turns = Turns::begin(0);
            let answer = question(&disk.root().join(path));
            Disk::unmount("presence");
            answer
        })
    }

    #[test]
    fn what_the_disk_does_not_say_is_no_no() {
        let answers = |of: [Result<bool, Fatal>; 6]| of.map(Result::unwrap);
        for (path, expected) in [
            ("folder", [true, false, true, false, true, false]),
            ("folder/file", [true, true, false, false, true, false]),
            ("folder/link", [true, true, false, true, false, true]),
            ("folder/none", [false; 6]),
            ("none/file", [false; 6]),
            ("folder/file/below", [false; 6]),
        ] {
            assert_eq!(answers(ask(0, 5, path)), expected, "{path}");
            // What is gone with the second or third try is as if it had not been.
            assert_eq!(answers(ask(2, 5, path)), expected, "{path}");
            for errno in [5, 13, 23, 40] {
                for answer in ask(1 << 40, errno, path) {
                    let Err(Fatal::Io {
                        path: named,
                        source,
                        ..
                    }) = answer
                    else {
                        panic!("{path}: {answer:?} for {errno}");
                    };
                    assert!(named.ends_with(path), "{named:?}");
                    assert_eq!(source.raw_os_error(), Some(errno));
                }
            }
            // ENOENT, ENOTDIR.
            for errno in [2, 20] {
                assert_eq!(answers(ask(1 << 40, errno, path)), [false; 6], "{path}");
            }
        }
    }
}
