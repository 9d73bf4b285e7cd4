//! MXINT as numbers and as bytes.

use crate::golden::{M, QUANTIZED, WEIGHT};
use qera_core::quantize::{Mxint, MxintError};

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
            == Err(MxintError::NonFinite {
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
