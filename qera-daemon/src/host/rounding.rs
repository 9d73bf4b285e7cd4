//! From f64 to f32.

/// Rounds to the nearest f32.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is the purpose"
)]
pub(crate) const fn narrow(value: f64) -> f32 {
    value as f32
}
