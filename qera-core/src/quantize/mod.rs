//! Number formats of weights, one file each: what W~ is.
//!
//! Quantization error reconstruction needs W~ as numbers, in f32, exactly as the stack that serves
//! the model will see them; a format that packs also encodes and decodes.

mod grid;
mod levels;
mod mxint;

pub use grid::Grid;
pub use levels::{Candidates, Levels};
pub use mxint::{Mxint, MxintError};
