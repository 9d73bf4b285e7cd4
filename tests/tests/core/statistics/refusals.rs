//! What is refused changes nothing, and what no stream can have left is not continued.

use nalgebra::DMatrixView;
use qera_core::rows::Rows;
use qera_core::statistics::{
    Autocorrelation, BatchMaxMeanAbs, BlockMeans, MeanAbs, Moments, SecondMoment, StatisticError,
};

use super::assert_same_bits;

/// Exactly the memory that is needed is lent; one number less or more is refused.
#[test]
fn states_refuse_memory_of_another_length() {
    let mut memory = [0.0; 8];
    let length = |needed, lent| Err(StatisticError::Length { needed, lent });
    assert!(Autocorrelation::new(&mut memory[..6], 3).is_ok());
    assert_eq!(
        Autocorrelation::new(&mut memory[..5], 3).map(|_| ()),
        length(6, 5)
    );
    assert_eq!(
        Autocorrelation::new(&mut memory[..7], 3).map(|_| ()),
        length(6, 7)
    );
    assert_eq!(Autocorrelation::new(&mut [], 0).map(|_| ()), length(1, 0));
    assert_eq!(SecondMoment::new(&mut []).map(|_| ()), length(1, 0));
    let (first, second) = memory.split_at_mut(3);
    assert_eq!(
        Moments::new(first, &mut second[..2]).map(|_| ()),
        length(3, 2)
    );
}

/// T11: whatever is refused leaves the state as it was, bit for bit.
#[test]
fn what_is_refused_changes_nothing() {
    let (mut packed, mut mean, mut m2) = ([2.0, 1.0, 3.0], [1.0, 2.0], [3.0, 4.0]);
    let mut autocorrelation = Autocorrelation::resume(&mut packed, 2, 7.0).unwrap();
    let mut moments = Moments::resume(&mut mean, &mut m2, 7.0).unwrap();
    let other_width = Rows::new(&[1.0, 2.0, 3.0], 3).unwrap();
    let refused = Err(StatisticError::InFeatures {
        expected: 2,
        found: 3,
    });
    assert_eq!(autocorrelation.update(&other_width), refused);
    assert_eq!(moments.update(&other_width), refused);
    let sums = [1.0, 2.0, 0.0, f32::INFINITY];
    let fold = autocorrelation.fold_block(DMatrixView::from_slice(&sums, 2, 2), 1.0);
    assert_eq!(
        fold,
        Err(StatisticError::Sum {
            row: 1,
            column: 1,
            value: f32::INFINITY
        })
    );
    let fold = autocorrelation.fold_block(DMatrixView::from_slice(&sums[..2], 2, 1), 1.0);
    assert_eq!(
        fold,
        Err(StatisticError::InFeatures {
            expected: 2,
            found: 1
        })
    );
    let fold = autocorrelation.fold_block(DMatrixView::from_slice(&sums, 2, 2), -1.0);
    assert_eq!(fold, Err(StatisticError::Weight { value: -1.0 }));
    assert_eq!(
        autocorrelation.merge(&[1.0, 1.0], 1.0),
        Err(StatisticError::Length { needed: 3, lent: 2 })
    );
    assert_eq!(
        autocorrelation.merge(&[1.0, 1.0, -1.0], 1.0),
        Err(StatisticError::Value {
            index: 2,
            value: -1.0
        })
    );
    assert!(autocorrelation.merge(&[1.0, f64::NAN, 1.0], 1.0).is_err());
    assert!(
        autocorrelation
            .merge(&[1.0, 1.0, 1.0], f64::INFINITY)
            .is_err()
    );
    assert_same_bits(&[autocorrelation.weight(), moments.weight()], &[7.0, 7.0]);
    assert_same_bits(autocorrelation.packed(), &[2.0, 1.0, 3.0]);
    assert_same_bits(moments.mean(), &[1.0, 2.0]);
    assert_same_bits(moments.m2(), &[3.0, 4.0]);
}

/// A snapshot that no stream can have written is refused, not continued.
#[test]
fn impossible_saved_values_are_refused() {
    let value = |index, value| Err(StatisticError::Value { index, value });
    assert_eq!(
        Autocorrelation::resume(&mut [1.0, 0.0, -1.0], 2, 1.0).map(|_| ()),
        value(2, -1.0)
    );
    assert_eq!(
        SecondMoment::resume(&mut [1.0, f64::INFINITY], 1.0).map(|_| ()),
        value(1, f64::INFINITY)
    );
    assert_eq!(
        MeanAbs::resume(&mut [-2.0], 1.0).map(|_| ()),
        value(0, -2.0)
    );
    assert_eq!(
        BatchMaxMeanAbs::resume(&mut [-2.0], 1.0).map(|_| ()),
        value(0, -2.0)
    );
    assert_eq!(
        Moments::resume(&mut [-2.0], &mut [-3.0], 1.0).map(|_| ()),
        value(0, -3.0)
    );
    assert!(SecondMoment::resume(&mut [1.0], f64::NAN).is_err());
    assert_eq!(
        BlockMeans::resume(1, 2.0, 0.5),
        None,
        "one block has no spread"
    );
    assert_eq!(
        BlockMeans::resume(0, 2.0, 0.0),
        None,
        "no block has no mean"
    );
    assert!(BlockMeans::resume(3, 2.0, 0.5).is_some());
}
