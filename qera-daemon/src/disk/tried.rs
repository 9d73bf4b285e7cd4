//! Tries to read or to remove three times, because an error of the disk may be gone a moment later.

use core::time::Duration;
use std::io::{Error, ErrorKind, Result};

use crate::disk::clock;
use crate::error::Fatal;

/// The pauses before the second and the third try.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(20)];

/// Tries something up to three times. That nothing is there is an answer and no failure,
/// and so is anything that this program itself says about a file.
///
/// # Errors
/// The system's error from the last try.
pub(crate) fn tried<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for pause in PAUSES {
        match attempt() {
            Err(error) if is_failure(&error) => clock::pause(pause),
            answer => return answer,
        }
    }
    attempt()
}

/// Whether the disk gave no answer, so that nothing is known of what is there. A missing file, a
/// file that ends too early and a path that is no file are answers.
#[must_use]
pub(crate) fn is_failure(error: &Error) -> bool {
    error.raw_os_error().is_some() && !says_that_nothing_is_there(error)
}

/// Whether that ended something.
#[must_use]
pub(crate) fn is_no_answer(fatal: &Fatal) -> bool {
    matches!(fatal, Fatal::Io { source, .. } if is_failure(source))
}

/// Whether the disk says that nothing is there: neither the file nor a folder that it would lie in.
#[must_use]
pub(crate) fn says_that_nothing_is_there(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries until so many attempts have failed with this error; returns the number of attempts.
    fn attempts(failing: usize, error: fn() -> Error) -> usize {
        let mut count = 0;
        let answer = tried(|| {
            count += 1;
            if count <= failing {
                Err(error())
            } else {
                Ok(count)
            }
        });
        assert_eq!(answer.is_ok(), count > failing);
        count
    }

    #[test]
    fn a_failure_is_tried_three_times_and_an_answer_once() {
        let no_answer = || Error::from_raw_os_error(5);
        assert_eq!(
            [0, 1, 2, 3, 9].map(|n| attempts(n, no_answer)),
            [1, 2, 3, 3, 3]
        );
        assert_eq!(
            attempts(9, || Error::from_raw_os_error(2)),
            1,
            "nothing there"
        );
        assert_eq!(attempts(9, || Error::other("is no file")), 1, "said by us");
    }
}
