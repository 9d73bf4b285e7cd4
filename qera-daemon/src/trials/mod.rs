//! What tries the daemon from within: inputs by the million for each parser ([`fuzz`]), and whole
//! runs on a disk in memory, their threads one at a time ([`simulation`], [`turns`]). Compiled for
//! tests alone, so that nothing of it is in the program.

pub(crate) mod draw;
mod fuzz;
mod simulation;
mod small_run;
pub(crate) mod turns;
