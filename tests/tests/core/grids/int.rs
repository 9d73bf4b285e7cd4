//! INT against its definition, word by word.

use proptest::prelude::*;
use qera_core::dtype::FloatDtype;
use qera_core::quantize::{Grid, Int, Levels};

use super::{DTYPES, any_int, any_matrix, blocks, quantize};

fn scale_of(dtype: FloatDtype, wanted: f64, most: f64) -> f32 {
    let rounded = match dtype {
        FloatDtype::F16 => half::f16::from_f32(wanted as f32).to_f32(),
        FloatDtype::Bf16 => half::bf16::from_f32(wanted as f32).to_f32(),
        FloatDtype::F32 => wanted as f32,
    };
    if dtype == FloatDtype::F16 {
        rounded.clamp(2.0_f32.powi(-24), 65_504.0)
    } else {
        // The largest number of the dtype at most f32::MAX / most.
        let bound = f64::from(f32::MAX) / most;
        let mut largest = bound as f32;
        if dtype == FloatDtype::Bf16 {
            largest = half::bf16::from_bits((largest.to_bits() >> 16) as u16).to_f32();
        }
        rounded.clamp(2.0_f32.powi(-100), largest)
    }
}

/// s and z of nearest rounding and of the finer scales.
fn scales(int: Int, block: &[f32]) -> Vec<(f32, f64)> {
    let codes = 2.0_f64.powi(int.element_bits() as i32);
    let low = block.iter().fold(0.0_f64, |low, &x| low.min(f64::from(x)));
    let high = block
        .iter()
        .fold(0.0_f64, |high, &x| high.max(f64::from(x)));
    let (range, most) = if int.has_zero_points() {
        (high - low, codes)
    } else {
        (2.0 * high.max(-low), codes / 2.0)
    };
    let first = scale_of(int.scale_dtype(), range / (codes - 1.0), most);
    let z = if int.has_zero_points() {
        (-low / f64::from(first))
            .round_ties_even()
            .clamp(0.0, codes - 1.0)
    } else {
        codes / 2.0
    };
    let all = [1.0, 0.9, 0.8, 0.7].map(|f| scale_of(int.scale_dtype(), f * f64::from(first), most));
    all.map(|s| (s, z)).to_vec()
}

fn value(int: Int, x: f32, (s, z): (f32, f64)) -> f32 {
    let last = 2.0_f64.powi(int.element_bits() as i32) - 1.0;
    let code = (f64::from((x / s).round_ties_even()) + z).clamp(0.0, last);
    (code - z) as f32 * s
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn equals_the_definition(weight in any_matrix(), int in any_int()) {
        let grid = Grid::Int(int);
        let out = quantize(grid, &weight);
        let of_weight = blocks(&weight.values, weight.in_features, grid);
        for (block, out) in of_weight.zip(blocks(&out, weight.in_features, grid)) {
            let scales = scales(int, block);
            let expected: Vec<f32> = block.iter().map(|&x| value(int, x, scales[0])).collect();
            prop_assert_eq!(out, expected);
            let candidates = int.candidates(block);
            let last = 2.0_f32.powi(int.element_bits() as i32) - 1.0;
            let levels = scales.iter().map(|&(step, z)| {
                let lowest = -(z as f32);
                Levels { step, lowest, highest: lowest + last }
            });
            prop_assert_eq!(candidates.as_slice(), levels.collect::<Vec<_>>());
        }
    }

    /// Every level of every candidate is a finite number, and so is 1 / step.
    #[test]
    fn scales_stay_in_range(weight in any_matrix(), int in any_int()) {
        for block in blocks(&weight.values, weight.in_features, Grid::Int(int)) {
            for levels in int.candidates(block).as_slice() {
                prop_assert!(levels.step > 0.0 && (1.0 / levels.step).is_finite());
                let ends = [levels.lowest, levels.highest].map(|integer| integer * levels.step);
                prop_assert!(ends.iter().all(|x| x.is_finite()), "{levels:?}");
                prop_assert_eq!(int.scale_dtype().round(levels.step), levels.step);
            }
        }
    }

    /// Half a step, or a step for the largest magnitude of a symmetric block.
    #[test]
    fn errors_are_bounded(int in any_int(), values in prop::collection::vec(-1.0_f32..1.0, 32)) {
        let mut out = vec![0.0; 32];
        int.quantize_dequantize(&values, 32, &mut out).unwrap();
        let step = int.candidates(&values).first().step;
        for (x, q) in values.iter().zip(&out) {
            // A scale or zero point that was rounded moves the ends of the range by as much more.
            prop_assert!((x - q).abs() <= 1.2 * step, "{x} {q} {step}");
        }
    }
}

#[test]
fn displayed_with_all_that_makes_it_another_format() {
    let mut names = Vec::new();
    for dtype in DTYPES {
        let int = Int::new(3, 64, dtype).unwrap();
        for int in [int, int.with_zero_points()] {
            assert_eq!(Grid::Int(int).name().to_string(), "int3");
            names.push(Grid::Int(int).to_string());
        }
    }
    assert_eq!(names[0], "int3, block_size 64, scales f16");
    assert_eq!(names[3], "int3, block_size 64, scales bf16, zero points");
}
