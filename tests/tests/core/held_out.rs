//! Held-out error: block means and what their intervals promise.

use proptest::prelude::*;
use qera_core::pseudo_random::SplitMix64;
use qera_core::statistics::BlockMeans;

/// How far a merged state may be from the plain sums.
const TOLERANCE: f64 = 1e-12;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Student-t intervals merge like their blocks.
    #[test]
    fn block_means_merge(blocks in prop::collection::vec(0.1_f64..10.0, 2..40), cut in 0_usize..40) {
        let of = |blocks: &[f64]| { let mut state = BlockMeans::new(); for &b in blocks { assert!(state.push(b)); } state };
        let (first, second) = blocks.split_at(cut.min(blocks.len()));
        let mut merged = of(first);
        merged.merge(&of(second));
        let mean = blocks.iter().sum::<f64>() / blocks.len() as f64;
        let variance = blocks.iter().map(|b| (b - mean).powi(2)).sum::<f64>() / (blocks.len() - 1) as f64;
        prop_assert_eq!(merged.count(), blocks.len() as u64);
        prop_assert!((merged.mean() - mean).abs() <= TOLERANCE * mean);
        prop_assert!((merged.variance().unwrap() - variance).abs() <= TOLERANCE * (variance + mean * mean));
    }
}

#[test]
fn intervals_need_two_blocks_and_a_probability() {
    let mut blocks = BlockMeans::default();
    assert_eq!(blocks.interval(0.95), None);
    assert!(blocks.push(1.0));
    assert_eq!((blocks.interval(0.95), blocks.variance()), (None, None));
    assert!(!blocks.push(f64::NAN), "not a block mean");
    assert!(blocks.push(2.0));
    assert!(
        blocks.interval(1.0).is_none()
            && blocks.interval(0.0).is_none()
            && blocks.interval(f64::NAN).is_none()
    );
    // t(0.975, 1) = 12.7062047..., s^2 = 1 / 2, two blocks.
    let interval = blocks.interval(0.95).unwrap();
    assert!(
        (interval.half_width - 12.706_204_736_174_7 / 2.0).abs() < 1e-11
            && (interval.mean - 1.5).abs() < 1e-15
    );
}

/// What an interval is for: of 4,000 intervals over 5 normal block means, 95 % hold the true mean
/// (with the normal quantile only 88 % would).
#[test]
fn intervals_cover_as_often_as_they_claim() {
    let mut sequence = SplitMix64::new(0);
    let mut uniform = || (sequence.next_bits() >> 11) as f64 / (1_u64 << 53) as f64;
    let mut covered = 0;
    for _ in 0..4_000 {
        let mut blocks = BlockMeans::new();
        for _ in 0..5 {
            let radius = (-2.0 * (1.0 - uniform()).ln()).sqrt();
            blocks.push(3.0 + radius * (core::f64::consts::TAU * uniform()).cos());
        }
        let interval = blocks.interval(0.95).unwrap();
        covered += u32::from((interval.mean - 3.0).abs() <= interval.half_width);
    }
    // The standard error of the share is 0.0034.
    let share = f64::from(covered) / 4_000.0;
    assert!((share - 0.95).abs() < 0.012, "{share}");
}
