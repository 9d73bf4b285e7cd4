//! Numbers to compute with, and seconds.

use std::time::Instant;

use qera_core::dtype::FloatDtype;
use qera_core::pseudo_random::SplitMix64;

/// Between -1 and 1; a channel in 97 is thirty times as large.
pub(crate) fn floats(seed: u64, count: usize) -> Vec<f32> {
    let mut sequence = SplitMix64::new(seed);
    let number = |i: usize| sequence.next_symmetric() * if i % 97 == 5 { 30.0 } else { 1.0 };
    (0..count).map(number).map(narrow).collect()
}

/// As a shard has them.
pub(crate) fn bytes(values: &[f32], dtype: FloatDtype) -> Vec<u8> {
    let values = values.iter();
    match dtype {
        FloatDtype::F32 => values.flat_map(|x| x.to_le_bytes()).collect(),
        FloatDtype::F16 => values
            .flat_map(|x| half::f16::from_f32(*x).to_le_bytes())
            .collect(),
        FloatDtype::Bf16 => values
            .flat_map(|x| half::bf16::from_f32(*x).to_le_bytes())
            .collect(),
    }
}

/// Seconds that `work` took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed().as_secs_f64())
}

/// The least of three: what stands in the way is not the device's.
pub(crate) fn least_of_three<E>(mut work: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        let (done, seconds) = timed(&mut work);
        done?;
        least = least.min(seconds);
    }
    Ok(least)
}

/// The largest difference over the largest size.
pub(crate) fn distance(found: &[f64], expected: &[f64]) -> f64 {
    let size = expected.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
    let pairs = found.iter().zip(expected);
    pairs.fold(0.0_f64, |max, (x, y)| max.max((x - y).abs())) / size
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding is what is wanted"
)]
const fn narrow(value: f64) -> f32 {
    value as f32
}
