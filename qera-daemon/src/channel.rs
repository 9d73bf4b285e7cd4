//! Channels between the threads of a run: those of crossbeam. In tests the threads of a simulated
//! run go one at a time, and a thread that waits says so (`trials/turns/`); the channels are then
//! simulated, too.

#[cfg(not(test))]
pub(crate) use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

#[cfg(test)]
pub(crate) use crate::trials::turns::channel::{Receiver, Sender, bounded, unbounded};
