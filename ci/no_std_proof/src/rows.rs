//! Bytes to checked rows.

use qera_core::dtype::{self, DecodeError, FloatDtype};
use qera_core::packed;
use qera_core::pseudo_random::SplitMix64;
use qera_core::rows::{Rows, ShapeError};

pub fn dtypes() -> bool {
    FloatDtype::size_bytes(FloatDtype::F32) == 4
        && FloatDtype::size_bytes(FloatDtype::F16) == 2
        && FloatDtype::name(FloatDtype::Bf16) == "bf16"
        && FloatDtype::round(FloatDtype::Bf16, 1.0 / 3.0) == 0.333_984_38
        && FloatDtype::round(FloatDtype::F16, 65_520.0) == f32::INFINITY
}

pub fn decoding() -> bool {
    // bf16: [1, 2], [NaN, -2], [3, -4]; f16: 0.5 and the smallest negative number
    let bytes = [
        0x80, 0x3f, 0x00, 0x40, 0xc0, 0x7f, 0x00, 0xc0, 0x40, 0x40, 0x80, 0xc0,
    ];
    let mut out = [0.0; 4];
    let kept = dtype::decode_rows(&bytes, FloatDtype::Bf16, 2, Some(&[1, 0, 1]), &mut out);
    let refused = dtype::decode_rows(&bytes, FloatDtype::Bf16, 2, None, &mut [0.0; 6]);
    let mut weights = [0.0; 2];
    let decoded = dtype::decode_weights(&[0x00, 0x38, 0x01, 0x80], FloatDtype::F16, &mut weights);
    let mut stored = bytes;
    let kept_stored = dtype::keep_rows(&mut stored, FloatDtype::Bf16, 2, Some(&[1, 0, 1]));
    let mut widened = [0.0; 4];
    dtype::widen(&stored[..8], FloatDtype::Bf16, &mut widened);
    kept == Ok(2)
        && kept_stored == kept
        && widened == out
        && out == [1.0, 2.0, 3.0, -4.0]
        && matches!(
            refused,
            Err(DecodeError::NonFinite {
                row: 1,
                column: 0,
                ..
            })
        )
        && decoded == Ok(())
        && weights == [0.5, -5.960_464_5e-8]
}

pub fn checked_rows() -> bool {
    let Ok(rows) = Rows::new(&[1.0, 2.0, 3.0, 4.0], 2) else {
        return false;
    };
    let Ok(weighted) = Rows::weighted(rows, &[0.5, 2.0]) else {
        return false;
    };
    let Ok(none) = Rows::new(&[], 2) else {
        return false;
    };
    let mut seen = 0.0;
    for row in Rows::iter(&weighted) {
        seen += row.values[1] * row.weight;
    }
    Rows::len(&rows) == 2
        && Rows::in_features(&rows) == 2
        && !Rows::is_empty(&rows)
        && Rows::is_empty(&none)
        && Rows::weight(&weighted) == 2.5
        && seen == 9.0
        && matches!(
            Rows::new(&[f32::NAN], 1),
            Err(ShapeError::Value {
                row: 0,
                column: 0,
                ..
            })
        )
}

pub fn packed_storage() -> bool {
    packed::packed_len(4) == 10
        && packed::packed_offset(4, 2) == 7
        && packed::packed_offset(4, 4) == 10
}

pub fn pseudo_random_sequence() -> bool {
    let mut sequence = SplitMix64::new(0);
    let first = SplitMix64::next_bits(&mut sequence);
    let number = SplitMix64::next_symmetric(&mut sequence);
    first == 0xe220_a839_7b1d_cdaf
        && SplitMix64::nth(0) == first
        && number == (SplitMix64::nth(1) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}
