//! The role of a shard's tensor, by its key: rows of a module, the mask or weights of rows, or a
//! part of a sum over rows.

use crate::formats::safetensors::header::Claim;
use crate::source::naming::RecordedModule;
use crate::source::refusal::WIDEST;
use crate::source::shard::owner_of;
use crate::source::sum_names::{ABS_SUM, BATCH_MAX, XTX, XTX_ROWS, XTX_WEIGHT};

use qera_core::packed::packed_len;

/// The endings of a sum's parts beside x^T x itself.
const BESIDE_SUM: [&str; 4] = [XTX_ROWS, XTX_WEIGHT, ABS_SUM, BATCH_MAX];

/// The role of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TensorRole<'k> {
    /// Rows of the module of this name.
    Rows(&'k str),
    /// The sum of x^T x over rows of the module of this name.
    Sum(&'k str),
    /// A mask or weights of the rows with this key, or a part of this module's sum.
    Beside(&'k str),
}

/// The role of the tensor with this key.
#[must_use]
pub(crate) fn role_of(key: &str) -> TensorRole<'_> {
    if let Some(owner) = owner_of(key) {
        return TensorRole::Beside(owner);
    }
    if let Some(module) = key.strip_suffix(XTX) {
        return TensorRole::Sum(module);
    }
    let others = BESIDE_SUM.iter().find_map(|part| key.strip_suffix(part));
    others.map_or(TensorRole::Rows(key), TensorRole::Beside)
}

/// Whether a tensor is a part of a sum, but not the sum itself.
#[must_use]
pub(crate) fn is_part_of_sum(key: &str) -> bool {
    BESIDE_SUM.iter().any(|part| key.ends_with(part))
}

/// The module whose input this tensor holds, as rows or as their sum, and the width of that; 0
/// where the length of a sum is that of no triangle.
#[must_use]
pub(crate) fn module_of(claim: &Claim) -> Option<RecordedModule> {
    let (name, in_features) = match role_of(&claim.key) {
        TensorRole::Rows(name) => (name, claim.shape.last().copied().unwrap_or_default()),
        TensorRole::Sum(name) => (name, triangle_side(&claim.shape).unwrap_or_default()),
        TensorRole::Beside(_) => return None,
    };
    let name = name.to_owned();
    Some(RecordedModule { name, in_features })
}

/// The side of a packed triangle of this shape.
fn triangle_side(shape: &[usize]) -> Option<usize> {
    let [length] = *shape else {
        return None;
    };
    // m^2 < 2 length < (m + 1)^2.
    let m = length.checked_mul(2)?.isqrt();
    (m <= WIDEST && packed_len(m) == length).then_some(m)
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::Dtype;

    #[test]
    fn keys_say_what_tensors_are() {
        assert_eq!(role_of("a.q"), TensorRole::Rows("a.q"));
        assert_eq!(role_of("a.q::mask"), TensorRole::Beside("a.q"));
        assert_eq!(role_of("a.q::xtx"), TensorRole::Sum("a.q"));
        assert_eq!(role_of("a.q::xtx_rows"), TensorRole::Beside("a.q"));
        assert_eq!(role_of("a.q::xtx::weight"), TensorRole::Beside("a.q::xtx"));
        assert!(is_part_of_sum("a.q::abs_sum") && !is_part_of_sum("a.q::xtx"));
        assert!(!is_part_of_sum("a.q::weight"));
    }

    #[test]
    fn a_triangle_has_one_side_and_other_lengths_have_none() {
        let of = |shape: &[usize]| {
            let claim = Claim {
                key: "a::xtx".into(),
                dtype: Dtype::F32,
                shape: shape.to_vec(),
                start: 0,
                bytes: 0,
            };
            module_of(&claim).unwrap().in_features
        };
        for m in (1..200).chain([4096, 14_336, WIDEST]) {
            assert_eq!(of(&[packed_len(m)]), m);
            assert_eq!(of(&[packed_len(m) + 1]), 0);
        }
        for shape in [&[][..], &[0], &[2], &[1, 3], &[usize::MAX], &[1 << 62]] {
            assert_eq!(of(shape), 0, "{shape:?}");
        }
    }
}
