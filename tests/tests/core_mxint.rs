//! MXINT against the official quantizer's executed results and against the definition in f64.
#![expect(
    clippy::float_cmp,
    reason = "the format is exact: equal as numbers or wrong"
)]
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use half::{bf16, f16};
use proptest::prelude::*;
use qera_core::quantize::{Mxint, MxintError};
use qera_tests::generate;

/// One row of the table of golden vectors: element_bits, block_size, input, output of the official `_mxint_quantizer`.
type Golden = (u32, usize, &'static [f32], &'static [f32]);

const GOLDEN: [Golden; 13] = [
    (4, 4, &[0.1, -0.25, 0.3, 0.9], &[0.125, -0.25, 0.25, 0.875]),
    (
        4,
        8,
        &[1.0, 0.125, 0.375, 0.625, -0.875, -0.125, 1.125, 1.375],
        &[1.0, 0.0, 0.5, 0.5, -1.0, 0.0, 1.0, 1.5],
    ),
    (
        4,
        4,
        &[1.99, -1.99, 1.9, 1.8749],
        &[1.75, -1.75, 1.75, 1.75],
    ),
    (
        2,
        5,
        &[1.0, 0.5, -0.75, 0.49, -1.6],
        &[1.0, 0.0, -1.0, 0.0, -1.0],
    ),
    (
        3,
        7,
        &[1.0, 0.5, -0.75, 0.24, -1.6, 0.25, 0.75],
        &[1.0, 0.5, -1.0, 0.0, -1.5, 0.0, 1.0],
    ),
    (
        8,
        4,
        &[0.7, -0.123, 0.011, -0.699],
        &[0.703_125, -0.125, 0.007_812_5, -0.695_312_5],
    ),
    (4, 4, &[100.0, 0.5, -3.0, 7.9], &[96.0, 0.0, 0.0, 0.0]),
    (
        4,
        4,
        &[0.5, 0.25, -0.4375, 0.03125],
        &[0.5, 0.25, -0.5, 0.0],
    ),
    (
        4,
        4,
        &[0.1, 0.2, 0.3, 0.4, 0.05, -0.06],
        &[0.125, 0.1875, 0.3125, 0.375, 0.046_875, -0.054_687_5],
    ),
    (4, 4, &[0.0, -0.0, 0.0, 0.0], &[0.0; 4]),
    (
        4,
        4,
        &[1e-39, -5e-39, 2e-38, 1.2e-38],
        &[0.0, 0.0, f32::from_bits(0x00e0_0000), f32::MIN_POSITIVE],
    ),
    (
        4,
        4,
        &[1.5, 0.125_000_01, 0.124_999_99, -0.125],
        &[1.5, 0.25, 0.0, 0.0],
    ),
    (
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

fn quantize(format: Mxint, weight: &[f32], in_features: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; weight.len()];
    format
        .quantize_dequantize(weight, in_features, &mut out)
        .unwrap();
    out
}

/// The definition, word by word, in f64: no exponent field, no rounding trick.
fn quantize_by_definition(element_bits: u32, block_size: usize, row: &[f32]) -> Vec<f64> {
    let bits = i32::try_from(element_bits).unwrap();
    let flushed = |x: &f32| {
        if x.abs() < f32::MIN_POSITIVE {
            0.0
        } else {
            f64::from(*x)
        }
    };
    let mut out = Vec::new();
    for block in row.chunks(block_size) {
        let largest = block.iter().map(|x| flushed(x).abs()).fold(0.0, f64::max);
        let exponent = (-126..=127)
            .rev()
            .find(|&e| 2.0_f64.powi(e) <= largest)
            .unwrap_or(-126);
        let step = 2.0_f64.powi(exponent - bits + 2);
        out.extend(block.iter().map(|x| {
            let integer = (flushed(x).abs() / step)
                .round_ties_even()
                .min(2.0_f64.powi(bits - 1) - 1.0);
            f64::from(*x).signum() * integer * step
        }));
    }
    out
}

#[test]
fn golden_vectors() {
    for (case, (element_bits, block_size, input, expected)) in GOLDEN.into_iter().enumerate() {
        let format = Mxint::new(element_bits, block_size).unwrap();
        assert_eq!(
            quantize(format, input, input.len()),
            expected,
            "golden vector {case}"
        );
    }
}

/// Signs of zeros, which comparison as numbers does not see: -0 goes to 0, a negative number that rounds to 0 to -0.
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

/// The reference overflows for exponents of 130 - element_bits and more; here the result is the largest level.
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

#[test]
fn non_finite_weights_are_refused_by_index() {
    let format = Mxint::new(4, 2).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let weight = [1.0, 2.0, 3.0, 4.0, 5.0, bad, bad, 8.0];
        let expected = Err(MxintError::NonFinite {
            index: 5,
            row: 1,
            column: 1,
        });
        assert_eq!(
            format.quantize_dequantize(&weight, 4, &mut [0.0; 8]),
            expected
        );
        assert_eq!(
            format.encode(&weight, 4, &mut [0; 4], &mut [0; 4]),
            expected
        );
    }
}

#[test]
fn wrong_formats_and_lengths_are_refused() {
    assert_eq!(
        Mxint::new(1, 32),
        Err(MxintError::ElementBits { element_bits: 1 })
    );
    assert_eq!(
        Mxint::new(9, 32),
        Err(MxintError::ElementBits { element_bits: 9 })
    );
    assert_eq!(Mxint::new(4, 0), Err(MxintError::BlockSize));
    let format = Mxint::new(3, 4).unwrap();
    let weight = [1.0; 10];
    let not_rows = |in_features| {
        Err(MxintError::Length {
            values: 10,
            in_features,
        })
    };
    assert_eq!(
        format.quantize_dequantize(&weight, 3, &mut [0.0; 10]),
        not_rows(3)
    );
    assert_eq!(
        format.quantize_dequantize(&weight, 0, &mut [0.0; 10]),
        not_rows(0)
    );
    let short = |needed, lent| Err(MxintError::OutputLength { needed, lent });
    assert_eq!(
        format.quantize_dequantize(&weight, 5, &mut [0.0; 9]),
        short(10, 9)
    );
    // 5 codes of 3 bits take 2 bytes a row; 5 elements make 2 blocks.
    assert_eq!((format.codes_len(2, 5), format.exponents_len(2, 5)), (4, 4));
    assert_eq!(
        format.encode(&weight, 5, &mut [0; 3], &mut [0; 4]),
        short(4, 3)
    );
    assert_eq!(
        format.encode(&weight, 5, &mut [0; 4], &mut [0; 5]),
        short(4, 5)
    );
    assert_eq!(
        format.decode(&[0; 4], &[0; 3], 5, &mut [0.0; 10]),
        short(4, 3)
    );
    assert_eq!(
        format.decode(&[0; 5], &[0; 4], 5, &mut [0.0; 10]),
        short(4, 5)
    );
}

/// Bytes that `encode` never writes stand for no weight.
#[test]
fn foreign_packed_bytes_are_refused() {
    let format = Mxint::new(4, 2).unwrap();
    let decode =
        |codes: [u8; 2], exponents: [u8; 2]| format.decode(&codes, &exponents, 4, &mut [0.0; 4]);
    assert_eq!(decode([0x97, 0x79], [127, 127]), Ok(()));
    assert_eq!(
        decode([0x97, 0x78], [127, 127]),
        Err(MxintError::Code { row: 0, column: 2 })
    );
    assert_eq!(
        decode([0x97, 0x79], [127, 255]),
        Err(MxintError::SharedExponent { row: 0, block: 1 })
    );
}

fn any_matrix() -> impl Strategy<Value = (Vec<f32>, usize)> {
    prop_oneof![
        generate::matrix_of(generate::checkpoint_weight().boxed()),
        generate::matrix_of(generate::tie().boxed()),
        generate::matrix_of(generate::finite().boxed()),
    ]
}

fn any_format() -> impl Strategy<Value = Mxint> {
    let block_size = prop::sample::select(vec![1_usize, 2, 5, 16, 20, 32, 33, 64, 128]);
    (2_u32..=8, block_size)
        .prop_map(|(element_bits, block_size)| Mxint::new(element_bits, block_size).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn equals_the_definition((weight, in_features) in any_matrix(), format in any_format()) {
        let out = quantize(format, &weight, in_features);
        for (row, out) in weight.chunks(in_features).zip(out.chunks(in_features)) {
            let expected = quantize_by_definition(format.element_bits(), format.block_size(), row);
            let out: Vec<f64> = out.iter().map(|&x| f64::from(x)).collect();
            prop_assert_eq!(out, expected);
        }
    }

    /// T2: what is quantized stays as it is.
    #[test]
    fn quantizing_again_changes_nothing((weight, in_features) in any_matrix(), format in any_format()) {
        let once = quantize(format, &weight, in_features);
        prop_assert_eq!(quantize(format, &once, in_features), once);
    }

    /// W~ of a bf16 checkpoint can be stored in bf16: no value needs more than 7 bits.
    #[test]
    fn results_fit_bf16((weight, in_features) in generate::matrix_of(generate::checkpoint_weight().boxed()), format in any_format()) {
        let weight: Vec<f32> = weight.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
        for x in quantize(format, &weight, in_features) {
            prop_assert_eq!(bf16::from_f32(x).to_f32(), x);
        }
    }

    #[test]
    fn packed_form_decodes_to_the_same_numbers((weight, in_features) in any_matrix(), format in any_format()) {
        let rows = weight.len() / in_features;
        let mut codes = vec![0xff; format.codes_len(rows, in_features)];
        let mut exponents = vec![0xff; format.exponents_len(rows, in_features)];
        format.encode(&weight, in_features, &mut codes, &mut exponents).unwrap();
        let mut out = vec![f32::NAN; weight.len()];
        format.decode(&codes, &exponents, in_features, &mut out).unwrap();
        prop_assert_eq!(out, quantize(format, &weight, in_features));
        // The same numbers have the same packed form: bits after a row's last code are zeros.
        let (mut again, mut exponents_again) = (codes.clone(), exponents.clone());
        format.encode(&quantize(format, &weight, in_features), in_features, &mut again, &mut exponents_again).unwrap();
        prop_assert_eq!((again, exponents_again), (codes, exponents));
    }
}
