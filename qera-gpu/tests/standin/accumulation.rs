//! R as it is folded on the device.

use crate::device;
use crate::inputs::{entry_error, gram, rows, second_moment};
use qera_core::dtype::FloatDtype;
use qera_gpu::{DeviceError, DeviceRows, PIECE_ROWS, PieceShare, Triangle};

const TYPES: [FloatDtype; 3] = [FloatDtype::Bf16, FloatDtype::F16, FloatDtype::F32];

/// What f32 sums over a piece may be off by, relative to sqrt(R_ii R_jj): 2^-24 sqrt(rows), and
/// the largest of many entries.
const SUM_ERROR: f64 = 1e-5;

/// Shares of pieces of a mean that held `before` rows.
fn shares(mut before: f64, pieces: &[usize]) -> Vec<PieceShare> {
    let mut shares = Vec::new();
    for &rows in pieces {
        let after = before + rows as f64;
        shares.push(PieceShare {
            rows,
            kept: before / after,
            per_sum: 1.0 / after,
        });
        before = after;
    }
    shares
}

/// Pieces that are whole, short, of one row, and none; widths around those of a panel and a block.
#[test]
fn rows_of_every_type_are_folded() {
    let offload = device();
    for dtype in TYPES {
        for m in [1_usize, 5, 255, 600] {
            let pieces = [PIECE_ROWS.min(2000 / m.isqrt().max(1)), 7, 0, 1];
            let count = pieces.iter().sum::<usize>();
            let before = 100.0;
            let old = second_moment(9, m);
            let (bytes, values) = rows(m as u64, count * m, dtype);
            let mut triangle = Triangle::new(&offload, &old, m).unwrap();
            let stored = DeviceRows {
                bytes: &bytes,
                dtype,
                in_features: m,
                weights: None,
            };
            triangle.fold(stored, &shares(before, &pieces)).unwrap();
            let mut found = vec![f64::NAN; old.len()];
            triangle.read(&mut found).unwrap();
            let mut expected = gram(&values, m, |_| 1.0);
            let total = before + count as f64;
            for (sum, old) in expected.iter_mut().zip(&old) {
                *sum = (*sum + before * old) / total;
            }
            let error = entry_error(&found, &expected, m);
            assert!(error < SUM_ERROR, "{dtype} {m}: {error:e}");
        }
    }
}

#[test]
fn rows_with_weights_are_folded() {
    let (offload, m, count) = (device(), 37, 50);
    let weights: Vec<f32> = (0..count).map(|r| 1.0 / (1 + r % 9) as f32).collect();
    let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
    for dtype in TYPES {
        let (bytes, values) = rows(3, count * m, dtype);
        let mut triangle = Triangle::new(&offload, &vec![0.0; m * (m + 1) / 2], m).unwrap();
        let stored = DeviceRows {
            bytes: &bytes,
            dtype,
            in_features: m,
            weights: Some(&weights),
        };
        let share = PieceShare {
            rows: count,
            kept: 0.0,
            per_sum: 1.0 / total,
        };
        triangle.fold(stored, &[share]).unwrap();
        let mut found = vec![f64::NAN; m * (m + 1) / 2];
        triangle.read(&mut found).unwrap();
        let expected = gram(&values, m, |r| f64::from(weights[r]) / total);
        let error = entry_error(&found, &expected, m);
        assert!(error < SUM_ERROR, "{dtype}: {error:e}");
    }
}

/// Several sites share the buffers through which rows go up, from several threads.
#[test]
fn sites_side_by_side_keep_their_rows_apart() {
    let offload = device();
    std::thread::scope(|scope| {
        for site in 0..3_u64 {
            let offload = &offload;
            scope.spawn(move || {
                let m = 20 + 10 * usize::try_from(site).unwrap();
                let (bytes, values) = rows(site, 12 * 40 * m, FloatDtype::Bf16);
                let mut triangle = Triangle::new(offload, &vec![0.0; m * (m + 1) / 2], m).unwrap();
                let all = shares(0.0, &[40; 12]);
                for (shard, share) in bytes.chunks(40 * m * 2).zip(&all) {
                    let stored = DeviceRows {
                        bytes: shard,
                        dtype: FloatDtype::Bf16,
                        in_features: m,
                        weights: None,
                    };
                    triangle.fold(stored, core::slice::from_ref(share)).unwrap();
                }
                let mut found = vec![f64::NAN; m * (m + 1) / 2];
                triangle.read(&mut found).unwrap();
                let expected = gram(&values, m, |_| 1.0 / 480.0);
                let error = entry_error(&found, &expected, m);
                assert!(error < SUM_ERROR, "site {site}: {error:e}");
            });
        }
    });
}

#[test]
fn the_same_rows_give_the_same_bits() {
    let m = 64;
    let (bytes, _) = rows(5, 300 * m, FloatDtype::F32);
    let read = || {
        let offload = device();
        let mut triangle = Triangle::new(&offload, &vec![0.0; m * (m + 1) / 2], m).unwrap();
        let stored = DeviceRows {
            bytes: &bytes,
            dtype: FloatDtype::F32,
            in_features: m,
            weights: None,
        };
        triangle
            .fold(stored, &shares(0.0, &[128, 128, 44]))
            .unwrap();
        let mut found = vec![f64::NAN; m * (m + 1) / 2];
        triangle.read(&mut found).unwrap();
        found.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    assert_eq!(read(), read());
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let (offload, m) = (device(), 4);
    let is_length = |result: Result<(), DeviceError>| {
        assert!(
            matches!(result, Err(DeviceError::Length { .. })),
            "{result:?}"
        );
    };
    is_length(Triangle::new(&offload, &[0.0; 9], m).map(|_| ()));
    let mut triangle = Triangle::new(&offload, &[0.0; 10], m).unwrap();
    let stored = |bytes, in_features, weights| DeviceRows {
        bytes,
        dtype: FloatDtype::F32,
        in_features,
        weights,
    };
    let two = shares(0.0, &[2]);
    is_length(triangle.fold(stored(&[0; 31], m, None), &two));
    is_length(triangle.fold(stored(&[0; 32], 2, None), &two));
    is_length(triangle.fold(stored(&[0; 32], m, Some(&[1.0])), &two));
    is_length(triangle.read(&mut [0.0; 9]));
    assert!(!offload.is_lost());
    triangle.read(&mut [0.0; 10]).unwrap();
}
