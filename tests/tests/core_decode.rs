//! Decoding of rows and weights, and what is refused before anything is accumulated.
#![expect(
    clippy::too_many_lines,
    reason = "a list of cases is read from top to bottom"
)]

use half::{bf16, f16};
use proptest::prelude::*;
use qera_core::dtype::{
    DecodeError, FloatDtype, MAGNITUDE_MAX, decode_rows, decode_weights, keep_rows, widen,
};
use qera_core::rows::{Rows, ShapeError};

const DTYPES: [FloatDtype; 3] = [FloatDtype::F32, FloatDtype::F16, FloatDtype::Bf16];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn masked_rows_are_dropped_and_never_inspected(
        rows in prop::collection::vec((any::<bool>(), prop::collection::vec(-100.0_f32..100.0, 7)), 0..20),
        dtype in prop::sample::select(DTYPES.to_vec()),
    ) {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for (kept, row) in &rows {
            for &x in row {
                let x = if *kept { x } else { f32::NAN };
                match dtype {
                    FloatDtype::F32 => bytes.extend(x.to_le_bytes()),
                    FloatDtype::F16 => bytes.extend(f16::from_f32(x).to_le_bytes()),
                    FloatDtype::Bf16 => bytes.extend(bf16::from_f32(x).to_le_bytes()),
                }
                if *kept { expected.push(dtype.round(x)); }
            }
        }
        let mask: Vec<u8> = rows.iter().zip(1..).map(|((kept, _), any_byte)| if *kept { any_byte } else { 0 }).collect();
        let mut out = vec![0.0; expected.len()];
        prop_assert_eq!(decode_rows(&bytes, dtype, 7, Some(&mask), &mut out), Ok(expected.len() / 7));
        prop_assert_eq!(out, expected);
    }

    /// Any bytes at all: the same rows are kept with the same bits, or the same place is refused for the same reason.
    #[test]
    fn kept_rows_are_the_decoded_ones(
        (in_features, rows, dtype, bytes, mask) in any_rows(),
    ) {
        same_rows(&bytes, dtype, in_features, None)?;
        same_rows(&bytes, dtype, in_features, Some(&mask))?;
        prop_assert_eq!(mask.len(), rows);
    }

    /// Small numbers with few bad ones among them, so that most rows pass and any row and column is the first bad one.
    #[test]
    fn kept_rows_are_refused_where_decoded_ones_are(
        (in_features, rows, dtype, mut bytes, mask) in any_rows(),
        bad in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(BAD.to_vec())), 0..4),
    ) {
        for byte in bytes.iter_mut().skip(dtype.size_bytes() - 1).step_by(dtype.size_bytes()) {
            // The exponent's upper bits: magnitudes below 2.
            *byte &= 0xbf;
        }
        for (place, value) in bad {
            if rows > 0 {
                let at = place.index(rows * in_features) * dtype.size_bytes();
                bytes[at..at + dtype.size_bytes()].copy_from_slice(&encoded(value, dtype));
            }
        }
        same_rows(&bytes, dtype, in_features, None)?;
        same_rows(&bytes, dtype, in_features, Some(&mask))?;
    }
}

/// What is refused, and the largest that is not.
const BAD: [f32; 6] = [
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::MAX,
    -3.0e17,
    MAGNITUDE_MAX,
];

fn encoded(value: f32, dtype: FloatDtype) -> Vec<u8> {
    match dtype {
        FloatDtype::F32 => value.to_le_bytes().to_vec(),
        FloatDtype::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
        FloatDtype::Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
    }
}

/// in_features, rows, dtype, bytes and mask.
fn any_rows() -> impl Strategy<Value = (usize, usize, FloatDtype, Vec<u8>, Vec<u8>)> {
    let shape = (
        1_usize..70,
        0_usize..12,
        prop::sample::select(DTYPES.to_vec()),
    );
    shape.prop_flat_map(|(in_features, rows, dtype)| {
        let bytes = rows * in_features * dtype.size_bytes();
        (
            Just(in_features),
            Just(rows),
            Just(dtype),
            prop::collection::vec(any::<u8>(), bytes),
            prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], rows),
        )
    })
}

/// `keep_rows` and then `widen` against `decode_rows`.
fn same_rows(
    bytes: &[u8],
    dtype: FloatDtype,
    in_features: usize,
    mask: Option<&[u8]>,
) -> Result<(), TestCaseError> {
    let numbers = bytes.len() / dtype.size_bytes();
    let mut decoded = vec![0.0; numbers];
    let mut kept = bytes.to_vec();
    let by_decoding = decode_rows(bytes, dtype, in_features, mask, &mut decoded);
    let by_keeping = keep_rows(&mut kept, dtype, in_features, mask);
    match (by_decoding, by_keeping) {
        (Ok(rows), Ok(kept_rows)) => {
            prop_assert_eq!(rows, kept_rows);
            let count = rows * in_features;
            let mut widened = vec![0.0; count];
            widen(&kept[..count * dtype.size_bytes()], dtype, &mut widened);
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&widened), bits(&decoded[..count]));
        }
        // NaN is not equal to itself, but written alike.
        (Err(left), Err(right)) => prop_assert_eq!(format!("{left:?}"), format!("{right:?}")),
        (left, right) => prop_assert!(false, "{left:?} is not {right:?}"),
    }
    Ok(())
}

#[test]
fn lengths_are_refused_by_keeping_as_by_decoding() {
    for (bytes, in_features, mask) in [
        (8, 3, None),
        (8, 0, None),
        (8, usize::MAX, None),
        (8, 2, Some(&[1_u8][..])),
        (8, 2, Some(&[1, 0, 1][..])),
        (0, 2, Some(&[][..])),
    ] {
        let mut bytes = vec![0; bytes];
        let decoded = decode_rows(&bytes, FloatDtype::Bf16, in_features, mask, &mut [0.0; 8]);
        let kept = keep_rows(&mut bytes, FloatDtype::Bf16, in_features, mask);
        assert_eq!(kept, decoded);
    }
}

#[test]
fn bad_values_are_refused_with_their_place() {
    let mut out = [0.0; 6];
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for dtype in DTYPES {
            let values = [1.0, 2.0, 3.0, 4.0, 5.0, bad];
            let encode = |x: f32| match dtype {
                FloatDtype::F32 => x.to_le_bytes().to_vec(),
                FloatDtype::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
                FloatDtype::Bf16 => bf16::from_f32(x).to_le_bytes().to_vec(),
            };
            let bytes: Vec<u8> = values.into_iter().flat_map(encode).collect();
            let refused = decode_rows(&bytes, dtype, 3, None, &mut out);
            assert!(
                matches!(refused, Err(DecodeError::NonFinite { row: 1, column: 2, value }) if value.to_bits() == bad.to_bits())
            );
            let refused = decode_rows(&bytes, dtype, 3, Some(&[0, 1]), &mut out);
            assert!(
                matches!(
                    refused,
                    Err(DecodeError::NonFinite {
                        row: 1,
                        column: 2,
                        ..
                    })
                ),
                "a row number of the input"
            );
            let refused = decode_weights(&bytes, dtype, &mut out);
            assert!(matches!(
                refused,
                Err(DecodeError::NonFinite {
                    row: 0,
                    column: 5,
                    ..
                })
            ));
        }
    }
    let large = MAGNITUDE_MAX.next_up();
    let bytes: Vec<u8> = [1.0, MAGNITUDE_MAX, -large, 0.0]
        .into_iter()
        .flat_map(f32::to_le_bytes)
        .collect();
    let refused = decode_rows(&bytes, FloatDtype::F32, 2, None, &mut out);
    assert_eq!(
        refused,
        Err(DecodeError::ProductOverflow {
            row: 1,
            column: 0,
            value: -large
        })
    );
    assert_eq!(
        decode_weights(&bytes, FloatDtype::F32, &mut out[..4]),
        Ok(()),
        "weights are not multiplied together"
    );
    let refused = Rows::new(&[1.0, f32::INFINITY], 1).unwrap_err();
    assert_eq!(
        refused,
        ShapeError::Value {
            row: 1,
            column: 0,
            value: f32::INFINITY
        }
    );
    assert_eq!(
        Rows::new(&[large], 1).unwrap_err(),
        ShapeError::Value {
            row: 0,
            column: 0,
            value: large
        }
    );
}

#[test]
fn wrong_lengths_and_weights_are_refused() {
    let mut out = [0.0; 4];
    let bytes = [0; 8];
    let decode = |in_features, mask, out: &mut [f32]| {
        decode_rows(&bytes, FloatDtype::Bf16, in_features, mask, out)
    };
    assert_eq!(
        decode(3, None, &mut out),
        Err(DecodeError::Length {
            bytes: 8,
            row_bytes: 6
        })
    );
    assert_eq!(
        decode(0, None, &mut out),
        Err(DecodeError::Length {
            bytes: 8,
            row_bytes: 0
        })
    );
    assert!(decode(usize::MAX, None, &mut out).is_err());
    assert_eq!(
        decode(2, Some(&[1]), &mut out),
        Err(DecodeError::MaskLength { mask: 1, rows: 2 })
    );
    assert_eq!(
        decode(2, None, &mut out[..3]),
        Err(DecodeError::OutputLength { needed: 4, lent: 3 })
    );
    assert_eq!(decode(2, Some(&[0, 9]), &mut out[..2]), Ok(1));
    assert_eq!(
        decode_weights(&bytes, FloatDtype::F32, &mut out),
        Err(DecodeError::OutputLength { needed: 2, lent: 4 })
    );
    assert_eq!(
        decode_weights(&bytes[..3], FloatDtype::F16, &mut out),
        Err(DecodeError::Length {
            bytes: 3,
            row_bytes: 2
        })
    );
    assert_eq!(Rows::new(&[], 0).unwrap_err(), ShapeError::InFeatures);
    let rows = Rows::new(&[1.0, 2.0], 1).unwrap();
    assert_eq!(
        rows.weighted(&[1.0]).unwrap_err(),
        ShapeError::Weights {
            weights: 1,
            rows: 2
        }
    );
    assert_eq!(
        rows.weighted(&[1.0, -0.5]).unwrap_err(),
        ShapeError::Weight {
            row: 1,
            value: -0.5
        }
    );
    assert!(matches!(
        rows.weighted(&[f32::NAN, 1.0]),
        Err(ShapeError::Weight { row: 0, .. })
    ));
}
