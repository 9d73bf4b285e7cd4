//! Weights that other programs packed into i32 (compressed-tensors' pack-quantized, GPTQ, AWQ
//! GEMM): codes of 4 or 8 bits, a scale for each group of inputs of an output, perhaps with a zero
//! point. These are parsers of bytes, and of the description in config.json; `weights/given/`
//! decides which tensor belongs to which layer.
//!
//! A number is `(code - zero point) * scale`, with an exact difference and a product in f32,
//! whatever the type of the scale. Engines differ from this by a rounding.

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
