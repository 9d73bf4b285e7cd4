//! Why a packed weight cannot be read.

use safetensors::Dtype;

/// What is wrong with the tensors of a packed weight.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum PackedError {
    /// A tensor has another type than it should have.
    #[error("'{part}' has dtype {found}, {expected} is read")]
    Type {
        /// The ending of its name.
        part: &'static str,
        /// The type it has.
        found: Dtype,
        /// The type that it should have.
        expected: &'static str,
    },
    /// A tensor does not have the shape that follows from the weight's widths.
    #[error("'{part}' has the shape {found:?}, {expected:?} is expected: {why}")]
    Shape {
        /// The ending of its name.
        part: &'static str,
        /// The shape it has.
        found: Vec<usize>,
        /// The shape that it should have.
        expected: Vec<usize>,
        /// The widths, bits and groups from which that follows.
        why: String,
    },
    /// A tensor is missing.
    #[error("'{part}' is missing: {why}")]
    Missing {
        /// The ending of its name.
        part: &'static str,
        /// Why it is needed.
        why: &'static str,
    },
    /// The widths do not fill whole words.
    #[error("{width} {of} do not fill whole words of {codes} codes")]
    Width {
        /// The width.
        width: usize,
        /// Whether these are inputs or outputs.
        of: &'static str,
        /// The number of codes in a word.
        codes: usize,
    },
    /// An input belongs to no group.
    #[error("'{part}' puts input {input} into group {found}, there are {groups} groups")]
    Group {
        /// The ending of the tensor's name.
        part: &'static str,
        /// The input.
        input: usize,
        /// The group that is stated.
        found: i64,
        /// The number of groups.
        groups: usize,
    },
    /// `weight_shape` states another shape.
    #[error("'weight_shape' says {found:?}, the weight in the checkpoint is {expected:?}")]
    SaidShape {
        /// The stated shape.
        found: Vec<i64>,
        /// The checkpoint's shape.
        expected: [usize; 2],
    },
    /// A scale is NaN or infinite.
    #[error("'{part}' is {scale:?} at output {output}, group {group}")]
    Scale {
        /// The ending of the tensor's name.
        part: &'static str,
        /// The scale.
        scale: f32,
        /// The scale's output.
        output: usize,
        /// The scale's group of inputs.
        group: usize,
    },
    /// A number that is stored as a float is NaN or infinite.
    #[error("row {output}: {error}")]
    Float {
        /// The number's row.
        output: usize,
        /// What is wrong with the number.
        error: String,
    },
    /// The configuration does not say how it is packed.
    #[error("is packed, but no target of config_groups names the layer, or ignore does")]
    NotTargeted,
    /// The number of words fits no size of codes that is read.
    #[error("has {words} rows of words for {inputs} inputs: codes of 4 and 8 bits are read")]
    Words {
        /// The number of rows of words.
        words: usize,
        /// The width of the input.
        inputs: usize,
    },
}
