//! Tensors that are not corrected although they might be linear layers, with the reason.

use core::fmt;
use std::collections::BTreeMap;

use safetensors::Dtype;
use serde::Serialize;

use crate::formats::gguf::block_type::BlockType;
use crate::settings::dotted::starred;

/// A tensor of two dimensions or more that is not corrected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PassedOver {
    /// The tensor's name.
    pub(crate) tensor: String,
    /// Its shape.
    pub(crate) shape: Vec<usize>,
    /// The reason.
    pub(crate) why: Why,
}

impl PassedOver {
    /// The number of its elements.
    #[must_use]
    pub(crate) fn parameters(&self) -> u64 {
        self.shape.iter().map(|&length| length as u64).product()
    }
}

/// Why a tensor is not corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// `--exclude` names it.
    Excluded,
    /// It is an output layer or an embedding.
    LeftOutByDefault,
    /// No `--include` matches it.
    NotIncluded,
    /// Nothing says that it is a linear layer.
    NotLinear,
    /// It is a linear map in another form: a fused or packed parameter.
    NoSuffix,
    /// It is called `NAME.weight` but has more than two dimensions.
    NotTwoDimensional,
    /// It may be stored transposed.
    UnknownOrientation,
    /// The class that serves the model lacks it.
    NotServed,
    /// It is an output layer that is tied to the embedding.
    Tied,
    /// With `--skip-broken`: a value is NaN or infinite. The fields give the first one's place.
    NotFinite {
        /// The value's row in the tensor.
        row: usize,
        /// The value's column.
        column: usize,
    },
    /// With `--skip-broken`: it has no elements.
    Empty,
    /// With `--skip-broken`: its type is not read.
    UnreadType(Dtype),
    /// The checkpoint has no tensor for it.
    Missing,
    /// The quantized file has no tensor for it.
    NotGiven,
    /// The quantized folder has no weight for it.
    NotInFolder,
    /// The quantized file stores it in a type that is not read.
    GivenAsUnknownType(u32),
    /// The quantized file has a factor beside it, which the engine applies to an adapter, too.
    GivenScaled,
    /// With `--skip-broken`: a block of it in the quantized file is NaN or infinite.
    GivenNotFinite,
    /// With `--skip-broken`: a number or scale of it in the quantized folder is NaN or infinite, or
    /// a scale is 0 where the weight is not.
    GivenBadScale,
    /// With `--skip-broken`: its numbers in the quantized file do not belong to its weight.
    GivenUnlike,
}

impl Why {
    /// Whether it is broken, and `--skip-broken` leaves it out.
    #[must_use]
    pub(crate) const fn is_broken(self) -> bool {
        matches!(
            self,
            Self::NotFinite { .. }
                | Self::UnreadType(_)
                | Self::Empty
                | Self::GivenNotFinite
                | Self::GivenBadScale
                | Self::GivenUnlike
        )
    }

    /// Whether the quantized file is the reason.
    #[must_use]
    pub(crate) const fn is_of_given(self) -> bool {
        matches!(
            self,
            Self::NotGiven
                | Self::NotInFolder
                | Self::GivenAsUnknownType(_)
                | Self::GivenScaled
                | Self::GivenNotFinite
                | Self::GivenBadScale
                | Self::GivenUnlike
        )
    }

    /// Whether neither an option nor a default asked for this.
    #[must_use]
    pub(crate) const fn is_unasked(self) -> bool {
        !matches!(
            self,
            Self::Excluded | Self::LeftOutByDefault | Self::NotIncluded
        )
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::Excluded => "--exclude matches it",
            Self::LeftOutByDefault => "an output or an embedding, left out by default",
            Self::NotIncluded => "no --include matches it",
            Self::NotLinear => {
                "not known to be a linear layer: no shard has its key, and qera.linears does not \
                 list it"
            }
            Self::NoSuffix => {
                "not named NAME.weight: fused experts or another form is not corrected"
            }
            Self::NotTwoDimensional => "has more than two dimensions: not corrected",
            Self::UnknownOrientation => {
                "may be stored [in_features, out_features] as Conv1D does; qera.linears must say so"
            }
            Self::NotServed => {
                "the class that serves the model lacks it; qera.class says which one has it"
            }
            Self::Tied => "tied to the embedding, whose place it would not keep",
            Self::NotFinite { row, column } => {
                return write!(
                    f,
                    "NaN or infinite at row {row}, column {column}: left out by --skip-broken"
                );
            }
            Self::Empty => "empty: left out by --skip-broken",
            Self::Missing => {
                "the recorded model has this linear layer, the checkpoint has no such tensor: is \
                 it complete?"
            }
            Self::NotGiven => "the --quantized file has no tensor of a block for it",
            Self::NotInFolder => "the --quantized folder has no weight for it",
            Self::GivenScaled => {
                "the --quantized file has a .scale beside it, by which llama.cpp multiplies an \
                 adapter of a feed-forward layer, too"
            }
            Self::GivenAsUnknownType(number) => {
                let why = BlockType::of(*number).err();
                let why = why.map_or_else(|| format!("type {number}"), |why| why.to_string());
                return write!(f, "in the --quantized file: {why}");
            }
            Self::GivenNotFinite => {
                "the --quantized file has a NaN or infinite block in it: left out by --skip-broken"
            }
            Self::GivenBadScale => {
                "the --quantized folder has a number or scale of it that is NaN or infinite, or a \
                 scale that is 0 where the weight is not: left out by --skip-broken"
            }
            Self::GivenUnlike => {
                "the --quantized file has other numbers for it: left out by --skip-broken"
            }
            Self::UnreadType(dtype) => {
                return write!(
                    f,
                    "has dtype {dtype}, which is not read: left out by --skip-broken"
                );
            }
        };
        f.write_str(words)
    }
}

/// Tensors that are passed over for the same reason and whose names differ only in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PassedOverGroup {
    /// The names of the tensors; `*` stands for any number.
    pub(crate) tensors: String,
    /// The number of these tensors.
    pub(crate) count: usize,
    /// The shape of the first.
    pub(crate) shape: Vec<usize>,
    /// The reason.
    pub(crate) why: String,
    /// The tensors' share of the model's parameters.
    pub(crate) share: f64,
}

impl fmt::Display for PassedOverGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tensors,
            count,
            shape,
            why,
            share,
        } = self;
        let times = match count {
            1 => String::new(),
            _ => format!(" (x {count})"),
        };
        write!(
            f,
            "{tensors}{times} {shape:?}, {:.1} % of the parameters: {why}",
            100.0 * share
        )
    }
}

/// Groups tensors whose names differ only in numbers, the largest share first.
#[must_use]
pub(crate) fn grouped(passed_over: &[PassedOver], parameters: u64) -> Vec<PassedOverGroup> {
    let mut groups: BTreeMap<(String, Why), PassedOverGroup> = BTreeMap::new();
    for of in passed_over {
        // Broken tensors are listed by name.
        let name = match of.why.is_broken() {
            true => of.tensor.clone(),
            false => starred(&of.tensor),
        };
        let group = groups
            .entry((name.clone(), of.why))
            .or_insert_with(|| PassedOverGroup {
                tensors: name,
                count: 0,
                shape: of.shape.clone(),
                why: of.why.to_string(),
                share: 0.0,
            });
        group.count += 1;
        if group.count == 1 {
            group.tensors = of.tensor.clone();
        } else {
            group.tensors = starred(&of.tensor);
        }
        group.share += of.parameters() as f64 / parameters.max(1) as f64;
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by(|a, b| b.share.total_cmp(&a.share));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_that_differ_in_numbers_are_one_line() {
        let of = |tensor: &str, why| PassedOver {
            tensor: tensor.into(),
            shape: vec![2, 5],
            why,
        };
        let all = [
            of("h.0.experts.1.w", Why::NotLinear),
            of("h.1.experts.0.w", Why::NotLinear),
            of("h.2.experts.0.w", Why::Excluded),
            of("h2.w", Why::NotLinear),
        ];
        let groups = grouped(&all, 100);
        assert_eq!(groups.len(), 3);
        assert_eq!(
            (groups[0].tensors.as_str(), groups[0].count),
            ("h.*.experts.*.w", 2)
        );
        assert!((groups[0].share - 0.2).abs() < 1e-12);
        assert!(groups.iter().any(|group| group.tensors == "h2.w"));
    }
}
