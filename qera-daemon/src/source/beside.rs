//! The tensors beside a tensor in a shard: the mask or weights of its rows, and the parts of a sum.

use std::collections::BTreeMap;

use safetensors::Dtype;

use crate::formats::safetensors::header::Claim;
use crate::source::bad_sum::BadSum;
use crate::source::refusal::Reason;
use crate::source::shard::{MASK, WEIGHT, owns_nothing};
use crate::source::sum_names::XTX;
use crate::source::tensor_role::{TensorRole, is_part_of_sum, role_of};

/// Which rows of a tensor count, and how much. The number is the byte of the file at which the mask
/// or the weights start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counting {
    /// Every row counts, with weight 1.
    EveryRow,
    /// A mask with a byte for each row.
    Mask(u64),
    /// Weights with an f32 for each row.
    Weights(u64),
}

/// Checks that a mask, weights or a part of a sum has its tensor in the shard.
pub(crate) fn check_beside(
    claim: &Claim,
    owner: &str,
    by_key: &BTreeMap<&str, &Claim>,
) -> Result<(), Reason> {
    if is_part_of_sum(&claim.key) {
        let key = claim.key.clone();
        let there = by_key.contains_key(format!("{owner}{XTX}").as_str());
        return there.then_some(()).ok_or(BadSum::Alone { key }.into());
    }
    let is_rows = matches!(role_of(owner), TensorRole::Rows(_));
    if owns_nothing(&claim.key) || !is_rows || !by_key.contains_key(owner) {
        return Err(alone(claim));
    }
    Ok(())
}

/// The refusal of a mask, or of weights, without its rows.
fn alone(claim: &Claim) -> Reason {
    let key = claim.key.clone();
    if owns_nothing(&key) {
        Reason::BesideNoRows { key }
    } else if key.ends_with(WEIGHT) {
        Reason::WeightsWithoutRows { key }
    } else {
        Reason::MaskWithoutRows { key }
    }
}

/// The tensors beside a tensor of rows.
pub(crate) struct Beside<'a> {
    mask: Option<&'a Claim>,
    weights: Option<&'a Claim>,
}

impl<'a> Beside<'a> {
    /// The tensors beside the rows with this key.
    pub(crate) fn of(key: &str, by_key: &BTreeMap<&str, &'a Claim>) -> Self {
        let beside = |suffix| by_key.get(format!("{key}{suffix}").as_str()).copied();
        Self {
            mask: beside(MASK),
            weights: beside(WEIGHT),
        }
    }
}

impl Beside<'_> {
    /// Which rows of the tensor count, and how much.
    pub(crate) fn counting(&self, of: &Claim) -> Result<Counting, Reason> {
        let expected = &of.shape[..of.shape.len() - 1];
        let wrong_dtype = |claim: &Claim, expected| Reason::WrongDtype {
            key: claim.key.clone(),
            found: claim.dtype.to_string(),
            expected,
        };
        match (self.mask, self.weights) {
            (None, None) => Ok(Counting::EveryRow),
            (Some(_), Some(_)) => Err(Reason::MaskAndWeights {
                key: of.key.clone(),
            }),
            (Some(mask), None) => {
                if mask.shape != expected {
                    return Err(Reason::MaskShape {
                        key: mask.key.clone(),
                        found: mask.shape.clone(),
                        expected: expected.to_vec(),
                    });
                }
                if !matches!(mask.dtype, Dtype::U8 | Dtype::BOOL) {
                    return Err(wrong_dtype(mask, "U8"));
                }
                Ok(Counting::Mask(mask.start))
            }
            (None, Some(weights)) => {
                if weights.shape != expected {
                    return Err(Reason::WeightShape {
                        key: weights.key.clone(),
                        found: weights.shape.clone(),
                        expected: expected.to_vec(),
                    });
                }
                if weights.dtype != Dtype::F32 {
                    return Err(wrong_dtype(weights, "F32"));
                }
                Ok(Counting::Weights(weights.start))
            }
        }
    }
}
