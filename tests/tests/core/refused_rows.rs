//! What is refused before anything is accumulated: values by their place, lengths and weights by
//! their numbers.

use qera_core::dtype::{DecodeError, FloatDtype, MAGNITUDE_MAX, decode_rows, decode_weights};
use qera_core::rows::{Rows, ShapeError};

use super::decode::{DTYPES, encoded};

#[test]
fn bad_values_are_refused_with_their_place() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for dtype in DTYPES {
            check_non_finite(bad, dtype);
        }
    }
    check_too_large(MAGNITUDE_MAX.next_up());
}

fn check_non_finite(bad: f32, dtype: FloatDtype) {
    let mut out = [0.0; 6];
    let values = [1.0, 2.0, 3.0, 4.0, 5.0, bad];
    let bytes: Vec<u8> = values.into_iter().flat_map(|x| encoded(x, dtype)).collect();
    let place = |refused| match refused {
        Err(DecodeError::NonFinite { row, column, value }) => {
            assert_eq!(value.to_bits(), bad.to_bits());
            [row, column]
        }
        other => panic!("{other:?}"),
    };
    let refused = decode_rows(&bytes, dtype, 3, None, &mut out).map(|_| ());
    assert_eq!(place(refused), [1, 2]);
    let refused = decode_rows(&bytes, dtype, 3, Some(&[0, 1]), &mut out).map(|_| ());
    assert_eq!(place(refused), [1, 2], "a row number of the input");
    let refused = decode_weights(&bytes, dtype, &mut out);
    assert_eq!(place(refused), [0, 5]);
}

fn check_too_large(large: f32) {
    let mut out = [0.0; 4];
    let bytes: Vec<u8> = [1.0, MAGNITUDE_MAX, -large, 0.0]
        .into_iter()
        .flat_map(f32::to_le_bytes)
        .collect();
    let overflow = DecodeError::ProductOverflow {
        row: 1,
        column: 0,
        value: -large,
    };
    let refused = decode_rows(&bytes, FloatDtype::F32, 2, None, &mut out);
    assert_eq!(refused, Err(overflow));
    let taken = decode_weights(&bytes, FloatDtype::F32, &mut out);
    assert_eq!(taken, Ok(()), "weights are not multiplied together");
    let value = |row, value| ShapeError::Value {
        row,
        column: 0,
        value,
    };
    let refused = Rows::new(&[1.0, f32::INFINITY], 1).unwrap_err();
    assert_eq!(refused, value(1, f32::INFINITY));
    let refused = Rows::new(&[large], 1).unwrap_err();
    assert_eq!(refused, value(0, large));
}

#[test]
fn wrong_lengths_and_weights_are_refused() {
    let bytes = [0; 8];
    let length = |bytes, row_bytes| Err(DecodeError::Length { bytes, row_bytes });
    let output = |needed, lent| Err(DecodeError::OutputLength { needed, lent });
    let mask = |mask, rows| Err(DecodeError::MaskLength { mask, rows });
    // in_features, mask, numbers lent.
    for (in_features, kept, lent, expected) in [
        (3, None, 4, length(8, 6)),
        (0, None, 4, length(8, 0)),
        (2, Some(&[1_u8][..]), 4, mask(1, 2)),
        (2, None, 3, output(4, 3)),
        (2, Some(&[0, 9][..]), 2, Ok(1)),
    ] {
        let mut out = [0.0; 4];
        let decoded = decode_rows(
            &bytes,
            FloatDtype::Bf16,
            in_features,
            kept,
            &mut out[..lent],
        );
        assert_eq!(decoded, expected, "{in_features} {kept:?} {lent}");
    }
    let mut out = [0.0; 4];
    assert!(decode_rows(&bytes, FloatDtype::Bf16, usize::MAX, None, &mut out).is_err());
    let weights = decode_weights(&bytes, FloatDtype::F32, &mut out);
    assert_eq!(weights, output(2, 4).map(|_: usize| ()));
    let weights = decode_weights(&bytes[..3], FloatDtype::F16, &mut out);
    assert_eq!(weights, length(3, 2).map(|_: usize| ()));
    check_row_weights();
}

fn check_row_weights() {
    assert_eq!(Rows::new(&[], 0).unwrap_err(), ShapeError::InFeatures);
    let rows = Rows::new(&[1.0, 2.0], 1).unwrap();
    let refused = rows.weighted(&[1.0]).unwrap_err();
    let weights = ShapeError::Weights {
        weights: 1,
        rows: 2,
    };
    assert_eq!(refused, weights);
    let refused = rows.weighted(&[1.0, -0.5]).unwrap_err();
    let weight = ShapeError::Weight {
        row: 1,
        value: -0.5,
    };
    assert_eq!(refused, weight);
    let refused = rows.weighted(&[f32::NAN, 1.0]);
    assert!(matches!(refused, Err(ShapeError::Weight { row: 0, .. })));
}
