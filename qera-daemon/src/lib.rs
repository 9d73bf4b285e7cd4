//! qera-daemon: activations and a checkpoint in, a low-rank adapter out.
//!
//! The data's way is the reading order:
//!
//! 1. [`cli`], [`settings`]: what was asked, checked once.
//! 2. [`run`]: the main job in order.
//! 3. [`checkpoint`]: the weights, which of them are layers, which layers share an input.
//! 4. [`source`]: shards of activations, distrusted until decoded.
//! 5. [`plan`]: what it will need, refused if that is too much.
//! 6. [`pipeline`]: the threads and channels.
//! 7. [`calibrate`]: rows into statistics.
//! 8. [`solve`]: statistics and weights into A and B, with their errors.
//! 9. [`publish`]: a generation, atomically.
//!
//! [`tensor_file`] is the safetensors container, [`observe`] the messages, [`error`] and [`exit`] the
//! ways to end. The mathematics that a device needs too is in `qera-core`; here it is done for hosts, by
//! faer, and both are held to the same properties by the tests.

pub mod calibrate;
pub mod checkpoint;
pub mod cli;
pub mod commands;
pub mod cores;
mod durable;
pub mod error;
pub mod exit;
pub mod job;
pub mod kernels;
pub mod observe;
pub mod pipeline;
pub mod plan;
pub mod publish;
pub mod run;
pub mod settings;
pub mod solve;
pub mod source;
pub mod state;
pub mod systemd;
pub mod tensor_file;
