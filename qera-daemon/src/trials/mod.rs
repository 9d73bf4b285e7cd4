//! What tries the daemon from within: inputs by the million for each parser ([`fuzz`]). Compiled for
//! tests alone, so that nothing of it is in the program.

mod draw;
mod fuzz;
mod small_run;
