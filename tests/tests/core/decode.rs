//! Decoding of rows and weights: any bytes, any mask, and keeping rows as they came beside decoding
//! them.

use half::{bf16, f16};
use proptest::prelude::*;
use qera_core::dtype::{FloatDtype, MAGNITUDE_MAX, decode_rows, keep_rows, widen};

pub(super) const DTYPES: [FloatDtype; 3] = [FloatDtype::F32, FloatDtype::F16, FloatDtype::Bf16];

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
                bytes.extend(encoded(if *kept { x } else { f32::NAN }, dtype));
                if *kept { expected.push(dtype.round(x)); }
            }
        }
        let mask: Vec<u8> = rows.iter().zip(1..).map(|((kept, _), any_byte)| if *kept { any_byte } else { 0 }).collect();
        let mut out = vec![0.0; expected.len()];
        prop_assert_eq!(decode_rows(&bytes, dtype, 7, Some(&mask), &mut out), Ok(expected.len() / 7));
        prop_assert_eq!(out, expected);
    }

    /// Any bytes at all: the same rows are kept with the same bits, or the same place is refused
    /// for the same reason.
    #[test]
    fn kept_rows_are_the_decoded_ones(
        stored in any_rows(),
    ) {
        stored.check()?;
        prop_assert_eq!(stored.mask.len(), stored.rows);
    }

    /// Small numbers with few bad ones among them, so that most rows pass and any row and column is
    /// the first bad one.
    #[test]
    fn kept_rows_are_refused_where_decoded_ones_are(
        mut stored in any_rows(),
        bad in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(BAD.to_vec())), 0..4),
    ) {
        let size = stored.dtype.size_bytes();
        for byte in stored.bytes.iter_mut().skip(size - 1).step_by(size) {
            // The exponent's upper bits: magnitudes below 2.
            *byte &= 0xbf;
        }
        for (place, value) in bad {
            if stored.rows > 0 {
                let at = place.index(stored.rows * stored.in_features) * size;
                stored.bytes[at..at + size].copy_from_slice(&encoded(value, stored.dtype));
            }
        }
        stored.check()?;
    }
}

/// Values that are refused, and the largest that is not.
const BAD: [f32; 6] = [
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::MAX,
    -3.0e17,
    MAGNITUDE_MAX,
];

/// The value's bytes as a file holds them.
pub(super) fn encoded(value: f32, dtype: FloatDtype) -> Vec<u8> {
    match dtype {
        FloatDtype::F32 => value.to_le_bytes().to_vec(),
        FloatDtype::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
        FloatDtype::Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
    }
}

/// Rows as a shard holds them.
#[derive(Clone, Debug)]
struct StoredRows {
    in_features: usize,
    rows: usize,
    dtype: FloatDtype,
    bytes: Vec<u8>,
    mask: Vec<u8>,
}

impl StoredRows {
    /// With the mask and without, both routines agree.
    fn check(&self) -> Result<(), TestCaseError> {
        let mask = self.mask.as_slice();
        same_rows(&self.bytes, self.dtype, self.in_features, None)?;
        same_rows(&self.bytes, self.dtype, self.in_features, Some(mask))
    }
}

fn any_rows() -> impl Strategy<Value = StoredRows> {
    let shape = (
        1_usize..70,
        0_usize..12,
        prop::sample::select(DTYPES.to_vec()),
    );
    shape.prop_flat_map(|(in_features, rows, dtype)| {
        let bytes = rows * in_features * dtype.size_bytes();
        let bytes = prop::collection::vec(any::<u8>(), bytes);
        let mask = prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], rows);
        (bytes, mask).prop_map(move |(bytes, mask)| StoredRows {
            in_features,
            rows,
            dtype,
            bytes,
            mask,
        })
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
