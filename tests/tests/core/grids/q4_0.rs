//! Q4_0 against ggml's reference, retold, and against what its Python package wrote.

use half::f16;
use proptest::prelude::*;
use qera_core::pseudo_random::SplitMix64;
use qera_core::quantize::{Grid, Q4_0};
use qera_tests::generate::GeneratedWeight;

use super::{any_matrix, blocks, quantize};

const GRID: Grid = Grid::Q4_0(Q4_0);

/// `quantize_row_q4_0_ref` and `dequantize_row_q4_0`, line by line.
fn by_ggml(block: &[f32]) -> Vec<f32> {
    let (mut amax, mut max) = (0.0_f32, 0.0_f32);
    for &v in block {
        if amax < v.abs() {
            amax = v.abs();
            max = v;
        }
    }
    let d = max / -8.0;
    let id = if d == 0.0 { 0.0 } else { 1.0 / d };
    let stored = f16::from_f32(d).to_f32();
    let code = |x: f32| ((x * id + 8.5) as i8).min(15);
    block
        .iter()
        .map(|&x| f32::from(code(x) - 8) * stored)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Bit for bit, the sign of 0 included, wherever ggml's scale is a finite number other than 0.
    #[test]
    fn equals_the_reference(weight in any_matrix()) {
        let out = quantize(GRID, &weight);
        let of_weight = blocks(&weight.values, weight.in_features, GRID);
        for (block, out) in of_weight.zip(blocks(&out, weight.in_features, GRID)) {
            let largest = block.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            if f16::from_f32(largest / 8.0).to_f32() == 0.0 {
                prop_assert!(out.iter().all(|&x| x == 0.0));
            } else if largest < 8.0 * 65_504.0 {
                prop_assert_eq!(bits(out), bits(&by_ggml(block)));
            } else {
                prop_assert!(out.iter().all(|x| x.is_finite()));
            }
        }
    }

    /// Every scale is a number of f16 other than 0, and the first is that of nearest rounding.
    #[test]
    fn candidates_are_scales_of_f16(weight in any_matrix()) {
        let out = quantize(GRID, &weight);
        let of_weight = blocks(&weight.values, weight.in_features, GRID);
        for (block, out) in of_weight.zip(blocks(&out, weight.in_features, GRID)) {
            let candidates = Q4_0.candidates(block);
            prop_assert_eq!(candidates.as_slice().len(), 4);
            for (levels, factor) in candidates.as_slice().iter().zip([1.0, 0.9, 0.8, 0.7]) {
                prop_assert_eq!(f16::from_f32(levels.step).to_f32(), levels.step);
                prop_assert!(levels.step != 0.0 && levels.step.is_finite());
                // Through f32, which on the way to f16 is not always what f64 alone comes to.
                let wanted = factor * f64::from(candidates.first().step);
                let wanted = f16::from_f32(wanted as f32);
                prop_assert!(wanted.to_f32() == levels.step || levels.step.abs() < 1e-7);
                prop_assert_eq!((levels.lowest, levels.highest), (-8.0, 7.0));
            }
            let first = candidates.first();
            prop_assert!(out.iter().all(|&x| first.nearest(x) == x));
        }
    }
}

/// Blocks of the `gguf` package 0.19, `quants.quantize(x, Q4_0)`: ordinary values, multiples of
/// 1/16 with many halves, values so small that d is a subnormal number of f16.
const WRITTEN: [[u8; 18]; 3] = [
    [
        0xe2, 0x9c, 0xd1, 0x4a, 0x85, 0x55, 0xbd, 0xdf, 0x7b, 0x16, 0x38, 0xf6, 0x06, 0x44, 0x51,
        0xed, 0xd0, 0x5f,
    ],
    [
        0x00, 0x30, 0xc6, 0x79, 0x35, 0xfe, 0x2a, 0x66, 0x26, 0x1e, 0x65, 0xdb, 0xe4, 0xa8, 0x6e,
        0x0f, 0xf4, 0x7c,
    ],
    [
        0x0c, 0x00, 0x92, 0x84, 0x72, 0x4f, 0x56, 0x3f, 0xd9, 0x79, 0xd9, 0xe4, 0xd0, 0xba, 0xc8,
        0xff, 0xa6, 0x27,
    ],
];

fn written_weight() -> GeneratedWeight {
    let value = |i: u64| {
        let number = SplitMix64::nth(i);
        match i / 32 {
            0 => ((number % 20_001) as f32 - 10_000.0) / 65_536.0 / 4.0,
            1 => ((number % 33) as f32 - 16.0) / 16.0,
            _ => ((number % 201) as f32 - 100.0) / 2.0_f32.powi(24),
        }
    };
    GeneratedWeight {
        values: (0..96).map(value).collect(),
        in_features: 32,
    }
}

#[test]
fn packed_form_is_what_ggml_writes() {
    let weight = written_weight();
    let values = quantize(GRID, &weight);
    let mut decoded = vec![0.0; 96];
    GRID.decode(WRITTEN.as_flattened(), &[], 32, &mut decoded)
        .unwrap();
    assert_eq!(values, decoded);
    let levels: Vec<_> = blocks(&weight.values, 32, GRID)
        .map(|block| Q4_0.candidates(block).first())
        .collect();
    let mut codes = vec![0xff; 54];
    GRID.encode(&values, &levels, 32, &mut codes, &mut [])
        .unwrap();
    assert_eq!(codes, WRITTEN.as_flattened());
}

#[test]
fn a_scale_of_0_stands_for_zeros() {
    let (mut out, mut levels) = ([1.0; 32], [Q4_0.candidates(&[1.0]).first()]);
    let block = [0, 0, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf1];
    GRID.decode(&block, &[], 32, &mut out).unwrap();
    assert!(out.iter().all(|&x| x == 0.0));
    GRID.levels_of(&block, &[], 32, &mut levels).unwrap();
    assert_eq!(levels[0], Q4_0.candidates(&out).first());
    assert_eq!(
        (GRID.to_string(), GRID.name().to_string()),
        ("q4-0, block_size 32".to_owned(), "q4-0".to_owned())
    );
}
