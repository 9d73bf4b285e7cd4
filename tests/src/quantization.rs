//! W~ and E = W - W~ of a test's weight, by the core's quantizer.
#![allow(clippy::unwrap_used, reason = "tests only")]

use qera_core::quantize::Mxint;

/// W~ of a row-major weight.
///
/// # Panics
/// When there is no such format, or the weight is not finite.
#[must_use]
pub fn quantized(
    weight: &[f32],
    in_features: usize,
    element_bits: u32,
    block_size: usize,
) -> Vec<f32> {
    let mut quantized = vec![0.0; weight.len()];
    Mxint::new(element_bits, block_size)
        .unwrap()
        .quantize_dequantize(weight, in_features, &mut quantized)
        .unwrap();
    quantized
}

/// E of a row-major weight.
///
/// # Panics
/// As [`quantized`].
#[must_use]
pub fn quantization_error(
    weight: &[f32],
    in_features: usize,
    element_bits: u32,
    block_size: usize,
) -> Vec<f32> {
    let quantized = quantized(weight, in_features, element_bits, block_size);
    weight.iter().zip(&quantized).map(|(w, q)| w - q).collect()
}
