//! Any weight in any format against the definition, and the packed form against the values.

use half::bf16;
use proptest::prelude::*;
use qera_core::quantize::Mxint;
use qera_tests::generate::{self, GeneratedWeight};

use super::quantize;

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

fn any_matrix() -> impl Strategy<Value = GeneratedWeight> {
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
    fn equals_the_definition(weight in any_matrix(), format in any_format()) {
        let out = quantize(format, &weight.values, weight.in_features);
        let in_features = weight.in_features;
        for (row, out) in weight.values.chunks(in_features).zip(out.chunks(in_features)) {
            let expected = quantize_by_definition(format.element_bits(), format.block_size(), row);
            let out: Vec<f64> = out.iter().map(|&x| f64::from(x)).collect();
            prop_assert_eq!(out, expected);
        }
    }

    /// T2: what is quantized stays as it is.
    #[test]
    fn quantizing_again_changes_nothing(weight in any_matrix(), format in any_format()) {
        let once = quantize(format, &weight.values, weight.in_features);
        prop_assert_eq!(quantize(format, &once, weight.in_features), once);
    }

    /// W~ of a bf16 checkpoint can be stored in bf16: no value needs more than 7 bits.
    #[test]
    fn results_fit_bf16(
        weight in generate::matrix_of(generate::checkpoint_weight().boxed()),
        format in any_format(),
    ) {
        let values: Vec<f32> = weight.values.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
        for x in quantize(format, &values, weight.in_features) {
            prop_assert_eq!(bf16::from_f32(x).to_f32(), x);
        }
    }

    #[test]
    fn packed_form_decodes_to_the_same_numbers(weight in any_matrix(), format in any_format()) {
        let (weight, in_features) = (&weight.values[..], weight.in_features);
        let rows = weight.len() / in_features;
        let mut codes = vec![0xff; format.codes_len(rows, in_features)];
        let mut exponents = vec![0xff; format.exponents_len(rows, in_features)];
        format.encode(weight, in_features, &mut codes, &mut exponents).unwrap();
        let mut out = vec![f32::NAN; weight.len()];
        format.decode(&codes, &exponents, in_features, &mut out).unwrap();
        prop_assert_eq!(out, quantize(format, weight, in_features));
        // The same numbers have the same packed form: bits after a row's last code are zeros.
        let once = quantize(format, weight, in_features);
        let (mut again, mut exponents_again) = (codes.clone(), exponents.clone());
        format.encode(&once, in_features, &mut again, &mut exponents_again).unwrap();
        prop_assert_eq!((again, exponents_again), (codes, exponents));
    }
}
