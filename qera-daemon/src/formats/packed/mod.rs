//! Weights that other programs packed into i32 (compressed-tensors' pack-quantized, GPTQ, AWQ
//! GEMM): codes of 4 or 8 bits, a scale for a group of inputs of one output, a zero point or none.
//! Parsers of bytes, and of what config.json says; which tensor belongs to which layer is
//! `weights/given/`'s.
//!
//! A number is `(code - zero point) * scale`, the difference exact, the product in f32, whatever
//! the type of the scale: engines differ by a rounding.

pub(crate) mod config;
pub(crate) mod error;
pub(crate) mod name_pattern;
pub(crate) mod part;
pub(crate) mod scheme;
pub(crate) mod weight;

#[cfg(test)]
mod config_tests;
#[cfg(test)]
mod weight_tests;
