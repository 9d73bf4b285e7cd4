//! MXINT against the official quantizer's executed results and against the definition in f64.
#![expect(
    clippy::float_cmp,
    reason = "the format is exact: equal as numbers or wrong"
)]

mod definition;
mod golden_vectors;
mod refusals;

use qera_core::quantize::Mxint;

fn quantize(format: Mxint, weight: &[f32], in_features: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; weight.len()];
    format
        .quantize_dequantize(weight, in_features, &mut out)
        .unwrap();
    out
}
