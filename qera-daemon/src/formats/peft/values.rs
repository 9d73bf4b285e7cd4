//! Checks the numbers of a factor, piece by piece: whether all are finite, and whether all are
//! zero.

use qera_core::dtype::FloatDtype;

/// What is known of a tensor's numbers so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FactorValues {
    seen: usize,
    /// Whether every value is zero.
    pub(crate) zero: bool,
    /// Index of the first value that is NaN or infinite.
    pub(crate) not_finite: Option<usize>,
}

impl FactorValues {
    /// No number was seen yet.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self {
            seen: 0,
            zero: true,
            not_finite: None,
        }
    }

    /// Adds the next numbers, as they are stored. A number that is cut off at the end does not
    /// count.
    pub(crate) fn add(&mut self, bytes: &[u8], dtype: FloatDtype) {
        match dtype {
            FloatDtype::F32 => {
                let values = bytes.as_chunks().0.iter().copied().map(u32::from_le_bytes);
                self.enter(values, 0x7fff_ffff, 0x7f80_0000);
            }
            FloatDtype::F16 => self.enter(halves(bytes), 0x7fff, 0x7c00),
            FloatDtype::Bf16 => self.enter(halves(bytes), 0x7fff, 0x7f80),
        }
    }

    /// `magnitude` masks the sign away, `infinite` is the pattern of infinity.
    fn enter(
        &mut self,
        values: impl ExactSizeIterator<Item = u32> + Clone,
        magnitude: u32,
        infinite: u32,
    ) {
        let count = values.len();
        // One pass without a branch: the largest bit pattern is that of the largest magnitude.
        let largest = values
            .clone()
            .fold(0, |most, bits| most.max(bits & magnitude));
        self.zero &= largest == 0;
        if largest >= infinite && self.not_finite.is_none() {
            let at = { values }.position(|bits| bits & magnitude >= infinite);
            self.not_finite = at.map(|at| self.seen + at);
        }
        self.seen += count;
    }
}

fn halves(bytes: &[u8]) -> impl ExactSizeIterator<Item = u32> + Clone {
    let pairs = bytes.as_chunks::<2>().0.iter();
    pairs.map(|pair| u32::from(u16::from_le_bytes(*pair)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::safetensors::header::encode;

    #[test]
    fn zeros_and_what_is_not_finite_are_found_in_every_type_however_it_is_cut() {
        let infinite = [0.0, -0.0, 1e-3, f32::NEG_INFINITY, f32::NAN];
        for dtype in [FloatDtype::F32, FloatDtype::F16, FloatDtype::Bf16] {
            let of = |values: &[f32], cut: usize| {
                let mut found = FactorValues::new();
                let width = encode(&[0.0], dtype).len();
                for piece in encode(values, dtype).chunks(cut * width) {
                    found.add(piece, dtype);
                }
                (found.zero, found.not_finite)
            };
            for cut in 1..6 {
                assert_eq!(of(&infinite, cut), (false, Some(3)), "{dtype:?} {cut}");
                assert_eq!(of(&infinite[..3], cut), (false, None));
                assert_eq!(of(&infinite[..2], cut), (true, None));
                assert_eq!(of(&[f32::NAN, 1.0, f32::NAN], cut).1, Some(0));
            }
            assert_eq!(of(&[65504.0, -1e-7], 1), (false, None));
        }
    }
}
