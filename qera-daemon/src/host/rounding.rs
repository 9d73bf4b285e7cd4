//! From f64 to f32.

/// To f32, rounding to nearest.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is the purpose"
)]
pub(crate) const fn narrow(value: f64) -> f32 {
    value as f32
}
