//! What a command prints: only the end of it is kept, however much it is.

use core::time::Duration;
use std::collections::VecDeque;
use std::io::{PipeReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::disk::clock::{now, since};

/// Bytes that are kept.
const KEPT: usize = 4096;
/// What a command leaves running may hold the pipe open: its output is not waited for.
const PATIENCE: Duration = Duration::from_millis(200);

/// The end of what a command printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PrintedEnd {
    /// As text, what is no UTF-8 replaced, without space at its ends.
    pub(crate) text: String,
    /// Bytes before it.
    pub(crate) left_out: u64,
}

/// A thread that reads what is printed, so that nobody waits for a full pipe. It ends with the last
/// process that may print.
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
    /// What the system says that gives no thread.
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

    /// What was printed, now that the command has ended.
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
