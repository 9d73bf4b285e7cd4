//! Number formats of weights, one folder each. A quantized weight W~ is in one of them.
//!
//! Quantization error reconstruction needs W~ as numbers, in f32, exactly as the stack that serves
//! the model will see them; every format also packs: [`Grid`] is any of them. [`round`] chooses W~
//! on any grid by what its error costs.

mod bit_stream;
mod blocks;
mod error;
mod grid;
mod int;
mod levels;
mod mxint;
mod on_grid;
mod packed;
mod q4_0;
pub mod round;

pub use error::GridError;
pub use grid::{Grid, GridName};
pub use int::Int;
pub use levels::{Candidates, Levels};
pub use mxint::Mxint;
pub use q4_0::Q4_0;
