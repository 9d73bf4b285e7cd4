//! Executed results of the official quantizer.

use half::{bf16, f16};
use qera_core::quantize::Mxint;

use super::quantize;

/// One row of the table of golden vectors.
struct MxintVector {
    element_bits: u32,
    block_size: usize,
    input: &'static [f32],
    /// The output of the official `_mxint_quantizer`.
    output: &'static [f32],
}

const fn vector(
    element_bits: u32,
    block_size: usize,
    input: &'static [f32],
    output: &'static [f32],
) -> MxintVector {
    MxintVector {
        element_bits,
        block_size,
        input,
        output,
    }
}

const GOLDEN: [MxintVector; 13] = [
    vector(4, 4, &[0.1, -0.25, 0.3, 0.9], &[0.125, -0.25, 0.25, 0.875]),
    vector(
        4,
        8,
        &[1.0, 0.125, 0.375, 0.625, -0.875, -0.125, 1.125, 1.375],
        &[1.0, 0.0, 0.5, 0.5, -1.0, 0.0, 1.0, 1.5],
    ),
    vector(
        4,
        4,
        &[1.99, -1.99, 1.9, 1.8749],
        &[1.75, -1.75, 1.75, 1.75],
    ),
    vector(
        2,
        5,
        &[1.0, 0.5, -0.75, 0.49, -1.6],
        &[1.0, 0.0, -1.0, 0.0, -1.0],
    ),
    vector(
        3,
        7,
        &[1.0, 0.5, -0.75, 0.24, -1.6, 0.25, 0.75],
        &[1.0, 0.5, -1.0, 0.0, -1.5, 0.0, 1.0],
    ),
    vector(
        8,
        4,
        &[0.7, -0.123, 0.011, -0.699],
        &[0.703_125, -0.125, 0.007_812_5, -0.695_312_5],
    ),
    vector(4, 4, &[100.0, 0.5, -3.0, 7.9], &[96.0, 0.0, 0.0, 0.0]),
    vector(
        4,
        4,
        &[0.5, 0.25, -0.4375, 0.03125],
        &[0.5, 0.25, -0.5, 0.0],
    ),
    vector(
        4,
        4,
        &[0.1, 0.2, 0.3, 0.4, 0.05, -0.06],
        &[0.125, 0.1875, 0.3125, 0.375, 0.046_875, -0.054_687_5],
    ),
    vector(4, 4, &[0.0, -0.0, 0.0, 0.0], &[0.0; 4]),
    vector(
        4,
        4,
        &[1e-39, -5e-39, 2e-38, 1.2e-38],
        &[0.0, 0.0, f32::from_bits(0x00e0_0000), f32::MIN_POSITIVE],
    ),
    vector(
        4,
        4,
        &[1.5, 0.125_000_01, 0.124_999_99, -0.125],
        &[1.5, 0.25, 0.0, 0.0],
    ),
    vector(
        4,
        4,
        &[4e-9, -8e-9, 2e-9, 1e-9],
        &[
            3.725_290_3e-9,
            -7.450_581e-9,
            1.862_645_1e-9,
            1.862_645_1e-9,
        ],
    ),
];

#[test]
fn golden_vectors() {
    for (case, vector) in GOLDEN.iter().enumerate() {
        let format = Mxint::new(vector.element_bits, vector.block_size).unwrap();
        let found = quantize(format, vector.input, vector.input.len());
        assert_eq!(found, vector.output, "golden vector {case}");
    }
}

/// Signs of zeros, which comparison as numbers does not see: -0 goes to 0, a negative number that
/// rounds to 0 to -0.
#[test]
fn signs_of_zeros_are_the_official_ones() {
    let format = Mxint::new(4, 4).unwrap();
    let signs = |input: [f32; 4]| {
        quantize(format, &input, 4)
            .iter()
            .map(|x| x.is_sign_negative())
            .collect::<Vec<_>>()
    };
    assert_eq!(signs([0.0, -0.0, 0.0, 0.0]), [false; 4]);
    assert_eq!(
        signs([1e-39, -5e-39, 2e-38, 1.2e-38]),
        [false, true, false, false]
    );
    assert_eq!(
        signs([1.5, 0.125_000_01, 0.124_999_99, -0.125]),
        [false, false, false, true]
    );
}

/// Golden vector 13: blocks along axis 0 are blocks along in_features of the transpose.
#[test]
fn golden_vector_of_axis_0() {
    let transposed = [1.0, 0.3, 0.05, 0.1, 0.7, -0.2];
    let out = quantize(Mxint::new(4, 2).unwrap(), &transposed, 3);
    assert_eq!(out, [1.0, 0.25, 0.046_875, 0.125, 0.75, -0.187_5]);
}

#[test]
fn sixteen_bit_inputs_have_the_official_results() {
    let input = [0.1, -0.25, 0.3, 0.9];
    let as_bf16 = input.map(|x| bf16::from_f32(x).to_f32());
    assert_eq!(
        quantize(Mxint::new(4, 4).unwrap(), &as_bf16, 4),
        [0.125, -0.25, 0.25, 0.875]
    );
    let as_f16 = input.map(|x| f16::from_f32(x).to_f32());
    let in_f16: Vec<f32> = quantize(Mxint::new(8, 4).unwrap(), &as_f16, 4)
        .iter()
        .map(|&x| f16::from_f32(x).to_f32())
        .collect();
    assert_eq!(in_f16, [0.101_562_5, -0.25, 0.296_875, 0.898_437_5]);
}

/// The reference overflows for exponents of 130 - element_bits and more; here the result is the
/// largest level.
#[test]
fn the_largest_numbers_stay_finite() {
    let out = quantize(
        Mxint::new(4, 4).unwrap(),
        &[3e38, 1e38, f32::MAX, -f32::MAX],
        4,
    );
    assert_eq!(
        out,
        [
            1.75 * 2.0_f32.powi(127),
            0.5 * 2.0_f32.powi(127),
            1.75 * 2.0_f32.powi(127),
            -1.75 * 2.0_f32.powi(127)
        ]
    );
}
