//! The formats of weights as numbers and as bytes.

use crate::golden::{M, QUANTIZED, WEIGHT};
use qera_core::dtype::FloatDtype;
use qera_core::quantize::{Candidates, Grid, GridError, Int, Levels, Mxint, Q4_0};

pub fn numbers() -> bool {
    let Ok(format) = Mxint::new(2, M) else {
        return false;
    };
    let mut out = [1.0; 12];
    let quantized = Mxint::quantize_dequantize(&format, &WEIGHT, M, &mut out);
    let refused = Mxint::quantize_dequantize(&format, &[1.0, f32::NAN], 2, &mut [0.0; 2]);
    Mxint::element_bits(&format) == 2
        && Mxint::block_size(&format) == M
        && quantized == Ok(())
        && out == QUANTIZED
        && refused
            == Err(GridError::NonFinite {
                index: 1,
                row: 0,
                column: 1,
            })
}

pub fn packed_form() -> bool {
    let Ok(format) = Mxint::new(4, 4) else {
        return false;
    };
    let (mut codes, mut exponents, mut out) = ([0; 2], [0; 1], [0.0; 4]);
    Mxint::codes_len(&format, 1, 4) == 2
        && Mxint::exponents_len(&format, 1, 4) == 1
        && Mxint::encode(
            &format,
            &[0.1, -0.25, 0.3, 0.9],
            4,
            &mut codes,
            &mut exponents,
        ) == Ok(())
        && codes == [0xe1, 0x72]
        && exponents == [126]
        && Mxint::decode(&format, &codes, &exponents, 4, &mut out) == Ok(())
        && out == [0.125, -0.25, 0.25, 0.875]
}

pub fn levels() -> bool {
    let levels = Levels {
        step: 0.5,
        lowest: -4.0,
        highest: 3.0,
    };
    let Ok(mxint) = Mxint::new(4, 4) else {
        return false;
    };
    let candidates = Mxint::candidates(&mxint, &[2.0, -3.0]);
    let first = Candidates::first(&candidates);
    Levels::integer(&levels, -1.25) == -2.0
        && Levels::nearest(&levels, 9.0) == 1.5
        && Candidates::as_slice(&candidates).len() == 2
        && (first.step, first.lowest, first.highest) == (0.5, -7.0, 7.0)
}

pub fn free_scales() -> bool {
    let Ok(symmetric) = Int::new(2, 32, FloatDtype::F16) else {
        return false;
    };
    let int = Int::with_zero_points(symmetric);
    let mut out = [0.0; 4];
    let weight = [3.0, -0.75, 1.0, 0.0];
    Int::element_bits(&int) == 2
        && Int::block_size(&int) == 32
        && Int::scale_dtype(&int) == FloatDtype::F16
        && Int::has_zero_points(&int)
        && Candidates::first(&Int::candidates(&int, &weight)).step == 1.25
        && Int::quantize_dequantize(&int, &weight, 4, &mut out) == Ok(())
        && out == [2.5, -1.25, 1.25, 0.0]
        && Q4_0::block_size(&Q4_0) == 32
        && Candidates::first(&Q4_0::candidates(&Q4_0, &weight)).step == -0.375
        && Q4_0::quantize_dequantize(&Q4_0, &weight, 4, &mut out) == Ok(())
        && out == [3.0, -0.75, 1.125, 0.0]
}

pub fn any_grid() -> bool {
    let (grid, weight) = (Grid::Q4_0(Q4_0), [4.0, -0.25, 0.5, 0.0]);
    let (mut values, mut out) = ([1.0; 4], [1.0; 4]);
    let levels = [Candidates::first(&Grid::candidates(&grid, &weight))];
    let (mut found, mut codes) = (levels, [0; 18]);
    found[0].step = 1.0;
    Grid::name(&grid) == Grid::name(&Grid::Q4_0(Q4_0))
        && Grid::block_size(&grid) == 32
        && Grid::quantize_dequantize(&grid, &weight, 4, &mut values) == Ok(())
        && values == [4.0, -0.5, 0.5, 0.0]
        && Grid::holds(&grid, &values, 4)
        && !Grid::holds(&grid, &[4.0, 0.3], 2)
        && Grid::codes_len(&grid, 1, 4) == codes.len()
        && Grid::scales_len(&grid, 1, 4) == 0
        && Grid::encode(&grid, &values, &levels, 4, &mut codes, &mut []) == Ok(())
        && Grid::decode(&grid, &codes, &[], 4, &mut out) == Ok(())
        && out == values
        && Grid::levels_of(&grid, &codes, &[], 4, &mut found) == Ok(())
        && found == levels
}
