//! What a shard has beside a tensor: the mask or weights of its rows, the parts of a sum.

use std::collections::BTreeMap;

use safetensors::Dtype;

use crate::formats::safetensors::header::Claim;
use crate::source::bad_sum::BadSum;
use crate::source::refusal::Reason;
use crate::source::shard::{MASK, WEIGHT, owns_nothing};
use crate::source::sum_names::XTX;
use crate::source::tensor_role::{TensorRole, is_part_of_sum, role_of};

/// What says which rows of a tensor count, and how much; the byte of the file where it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counting {
    /// Every row, with weight 1.
    EveryRow,
    /// A mask, a byte a row.
    Mask(u64),
    /// Weights, an f32 a row.
    Weights(u64),
}

/// Whether what says something of another tensor has that beside it.
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

/// Refuses a mask, or weights, whose tensor of rows is not in the shard.
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

/// What a shard has beside a tensor.
pub(crate) struct Beside<'a> {
    mask: Option<&'a Claim>,
    weights: Option<&'a Claim>,
}

impl<'a> Beside<'a> {
    /// Of the rows with this key.
    pub(crate) fn of(key: &str, by_key: &BTreeMap<&str, &'a Claim>) -> Self {
        let beside = |suffix| by_key.get(format!("{key}{suffix}").as_str()).copied();
        Self {
            mask: beside(MASK),
            weights: beside(WEIGHT),
        }
    }
}

impl Beside<'_> {
    /// Which of the tensor's rows count.
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
