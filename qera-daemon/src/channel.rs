//! Channels between the threads of a run: crossbeam's. In tests the threads of a simulated run go
//! one at a time, and whoever waits says so (`trials/turns/`): then they are channels of those.

#[cfg(not(test))]
pub(crate) use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

#[cfg(test)]
pub(crate) use crate::trials::turns::channel::{Receiver, Sender, bounded, unbounded};
