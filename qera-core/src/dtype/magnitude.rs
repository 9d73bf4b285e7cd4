//! The largest magnitude of an activation, and the search for what is above it ([the module](super)
//! derives it).

/// The largest |x| of an activation, 2^57: the f32 sum of 4096 products of two such numbers is at
/// most 2^126, so finite.
///
/// ```
/// use qera_core::{dtype::MAGNITUDE_MAX, rows::Rows};
/// assert!(Rows::new(&[MAGNITUDE_MAX], 1).is_ok());
/// assert!(Rows::new(&[MAGNITUDE_MAX.next_up()], 1).is_err());
/// ```
pub const MAGNITUDE_MAX: f32 = 144_115_188_075_855_872.0;

/// All bits but the sign.
pub(super) const MAGNITUDE_BITS: u32 = 0x7fff_ffff;

/// Says whether every |value| is at most `limit` (and so finite): a loop without early exit, so
/// that it vectorises.
pub(crate) fn is_within(values: &[f32], limit: f32) -> bool {
    // Signed comparisons, which every vector unit has; with the sign bit cleared they order the
    // same.
    let limit = limit.to_bits().cast_signed();
    let mut above = 0_i32;
    for value in values {
        above |= i32::from((value.to_bits() & MAGNITUDE_BITS).cast_signed() > limit);
    }
    above == 0
}

/// Finds the first value that is not finite or above `limit` in magnitude.
pub(crate) fn first_above(values: &[f32], limit: f32) -> Option<usize> {
    values
        .iter()
        .position(|value| value.to_bits() & MAGNITUDE_BITS > limit.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_is_allowed_and_its_sums_stay_finite() {
        assert_eq!(MAGNITUDE_MAX.to_bits(), (127 + 57) << 23);
        assert!(is_within(&[MAGNITUDE_MAX, -MAGNITUDE_MAX], MAGNITUDE_MAX));
        assert_eq!(
            first_above(&[0.0, -MAGNITUDE_MAX.next_up()], MAGNITUDE_MAX),
            Some(1)
        );
        let sum = (0..4096).fold(0.0_f32, |sum, _| sum + MAGNITUDE_MAX * MAGNITUDE_MAX);
        assert!(sum.is_finite());
    }
}
