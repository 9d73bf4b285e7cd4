//! What a command prints. Only the end of it is kept, however long it is.

use core::time::Duration;
use std::collections::VecDeque;
use std::io::{PipeReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::disk::clock::{now, since};

/// How many bytes are kept.
const KEPT: usize = 4096;
/// How long the reading goes on after the command's end: a process that it leaves running may hold
/// the pipe open.
const PATIENCE: Duration = Duration::from_millis(200);

/// The end of what a command printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PrintedEnd {
    /// The end as text, with anything that is no UTF-8 replaced, and without blanks around it.
    pub(crate) text: String,
    /// The number of bytes before it.
    pub(crate) left_out: u64,
}

/// A thread that reads what is printed, so that no command waits for a full pipe. It ends when the
/// last process that may print has ended.
#[derive(Debug)]
pub(crate) struct Printing {
    tail: Arc<Mutex<Tail>>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Tail {
    bytes: VecDeque<u8>,
    left_out: u64,
}

impl Printing {
    /// Begins to read.
    ///
    /// # Errors
    /// The system's error where it gives no thread.
    pub(crate) fn read(mut pipe: PipeReader) -> std::io::Result<Self> {
        let tail = Arc::new(Mutex::new(Tail::default()));
        let kept = Arc::clone(&tail);
        let read = move || {
            let mut piece = [0; KEPT];
            while let Ok(count @ 1..) = pipe.read(&mut piece) {
                let mut tail = kept.lock().unwrap_or_else(PoisonError::into_inner);
                tail.add(&piece[..count]);
            }
        };
        let thread = thread::Builder::new()
            .name("on-publish-output".into())
            .spawn(read)?;
        Ok(Self { tail, thread })
    }

    /// The end of what was printed; called once the command has ended.
    pub(crate) fn end(self) -> PrintedEnd {
        let begun = now();
        while !self.thread.is_finished() && since(begun) < PATIENCE {
            thread::sleep(Duration::from_millis(1));
        }
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = tail.bytes.iter().copied().collect();
        PrintedEnd {
            text: String::from_utf8_lossy(&bytes).trim().to_owned(),
            left_out: tail.left_out,
        }
    }
}

impl Tail {
    fn add(&mut self, piece: &[u8]) {
        self.bytes.extend(piece);
        let surplus = self.bytes.len().saturating_sub(KEPT);
        self.bytes.drain(..surplus);
        self.left_out += surplus as u64;
    }
}
