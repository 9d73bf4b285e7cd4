//! Turns stored little-endian f32, f16 and bf16 numbers into checked f32.
//!
//! # Widening
//! bf16 is the upper half of an f32: a shift. f16 has 5 exponent bits with bias 15 where f32 has 8
//! with bias 127, so its magnitude shifted left by 13 bits is the f32 that is 2^(127 - 15) too
//! small, subnormal f16 numbers included (they become subnormal f32 numbers); one multiplication by
//! 2^112 puts that right, exactly. Infinity and NaN, exponent field 31, get exponent field 255 by a
//! selection. Neither widening has a branch, so the loops vectorise.
//!
//! # The largest magnitude
//! Accumulation multiplies in f32 and may sum the products of up to 4096 = 2^12 rows in f32 before
//! it folds them in f64.
//! |x| <= 2^57 gives products of at most 2^114 and sums of at most 2^126, below the largest f32, which is almost 2^128: the
//! spare factor of 4 covers the rounding of the sums, whatever their order. An activation near 1e17
//! is an overflow in the making, not data; it is refused with its place, as infinity and NaN are.
//!
//! Both checks are one integer comparison: the bits of |x| grow with |x|, and infinity and NaN lie
//! above every finite number.
//!
//! Cost: one pass, no allocation. Source: IEEE 754-2019, 3.4 (interchange formats) and 3.3 (their
//! values).

mod decode;
mod error;
mod float_dtype;
mod magnitude;
mod widen;

pub use decode::{decode_rows, decode_weights, keep_rows};
pub use error::DecodeError;
pub use float_dtype::FloatDtype;
pub use magnitude::MAGNITUDE_MAX;
pub use widen::widen;

pub(crate) use magnitude::{first_above, is_within};
