//! What a run leaves, and what the next one makes of it.

mod continued;
mod damage;
mod durable;
mod gathered_names;
mod journal_size;
mod losses;
mod new_checkpoint;
mod solve;
mod unreadable;
mod version;
mod window_memory;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
