//! INT and Q4_0 against their definitions, and the packed form of every grid.
#![expect(
    clippy::float_cmp,
    reason = "the formats are exact: equal as numbers or wrong"
)]

mod int;
mod on_grid;
mod packed;
mod q4_0;
mod refusals;

use proptest::prelude::*;
use qera_core::dtype::FloatDtype;
use qera_core::quantize::{Grid, Int, Levels, Mxint, Q4_0};
use qera_tests::generate::{self, GeneratedWeight};

const DTYPES: [FloatDtype; 3] = [FloatDtype::F16, FloatDtype::Bf16, FloatDtype::F32];

fn any_int() -> impl Strategy<Value = Int> {
    let block_size = prop::sample::select(vec![32_usize, 64, 128]);
    let dtype = prop::sample::select(DTYPES.to_vec());
    (2_u32..=8, block_size, dtype, any::<bool>()).prop_map(
        |(bits, block_size, dtype, zero_points)| {
            let int = Int::new(bits, block_size, dtype).unwrap();
            if zero_points {
                int.with_zero_points()
            } else {
                int
            }
        },
    )
}

pub(crate) fn any_grid() -> impl Strategy<Value = Grid> {
    let mxint = (
        2_u32..=8,
        prop::sample::select(vec![1_usize, 5, 16, 32, 64]),
    );
    prop_oneof![
        mxint.prop_map(|(bits, block_size)| Grid::Mxint(Mxint::new(bits, block_size).unwrap())),
        any_int().prop_map(Grid::Int),
        Just(Grid::Q4_0(Q4_0)),
    ]
}

/// Weights of every kind: those of checkpoints, ties, extreme exponents, blocks of zeros; rows
/// whose last block is short.
pub(crate) fn any_matrix() -> impl Strategy<Value = GeneratedWeight> {
    let blocks_of_zeros = prop_oneof![4 => Just(0.0_f32), 1 => -1.0_f32..1.0];
    prop_oneof![
        generate::matrix_of(generate::checkpoint_weight().boxed()),
        generate::matrix_of(generate::tie().boxed()),
        generate::matrix_of(generate::finite().boxed()),
        generate::matrix_of(blocks_of_zeros.boxed()),
        generate::matrix_of(Just(0.0_f32)),
    ]
}

pub(crate) fn quantize(grid: Grid, weight: &GeneratedWeight) -> Vec<f32> {
    let mut out = vec![f32::NAN; weight.values.len()];
    grid.quantize_dequantize(&weight.values, weight.in_features, &mut out)
        .unwrap();
    out
}

/// The blocks of a row-major weight, rows one after the other.
fn blocks(values: &[f32], in_features: usize, grid: Grid) -> impl Iterator<Item = &[f32]> {
    let rows = values.chunks(in_features);
    rows.flat_map(move |row| row.chunks(grid.block_size()))
}

/// The values rounded to levels chosen by `choose` among each block's candidates.
fn rounded(
    weight: &GeneratedWeight,
    grid: Grid,
    mut choose: impl FnMut(&[Levels]) -> Levels,
) -> (Vec<f32>, Vec<Levels>) {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    for block in blocks(&weight.values, weight.in_features, grid) {
        let chosen = choose(grid.candidates(block).as_slice());
        values.extend(block.iter().map(|&x| chosen.nearest(x)));
        levels.push(chosen);
    }
    (values, levels)
}
