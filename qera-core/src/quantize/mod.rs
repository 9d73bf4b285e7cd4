//! Number formats of weights, one module each: [`mxint`], [`int`] and [`q4_0`]. A quantized weight
//! W~ is in one of them.
//!
//! Quantization error reconstruction needs W~ as numbers, in f32, exactly as the stack that serves
//! the model will see them; every format also packs ([`packed`]), and tells whether numbers
//! lie on its grid ([`on_grid`]). [`Grid`] is any of them. [`round`] chooses W~ on any grid by what
//! its error costs.

mod bit_stream;
mod blocks;
mod error;
mod grid;
pub mod int;
mod levels;
pub mod mxint;
pub mod on_grid;
pub mod packed;
pub mod q4_0;
pub mod round;

pub use error::GridError;
pub use grid::{Grid, GridName};
#[doc(inline)]
pub use int::Int;
pub use levels::{Candidates, Levels};
#[doc(inline)]
pub use mxint::Mxint;
#[doc(inline)]
pub use q4_0::Q4_0;
