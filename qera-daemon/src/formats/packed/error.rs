//! Why a packed weight is none.

use safetensors::Dtype;

/// What is wrong with the tensors of a packed weight.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum PackedError {
    /// A tensor is not of the type that it should be.
    #[error("'{part}' has dtype {found}, {expected} is read")]
    Type {
        /// What it is called after the module.
        part: &'static str,
        /// Its type.
        found: Dtype,
        /// What it should be.
        expected: &'static str,
    },
    /// A tensor is not of the shape that the weight's widths ask for.
    #[error("'{part}' has the shape {found:?}, {expected:?} is expected: {why}")]
    Shape {
        /// What it is called after the module.
        part: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// What it should be.
        expected: Vec<usize>,
        /// Of which widths, bits and groups.
        why: String,
    },
    /// A tensor is missing.
    #[error("'{part}' is missing: {why}")]
    Missing {
        /// What it is called after the module.
        part: &'static str,
        /// Who asks for it.
        why: &'static str,
    },
    /// The widths do not fill whole words.
    #[error("{width} {of} do not fill whole words of {codes} codes")]
    Width {
        /// The width.
        width: usize,
        /// Inputs or outputs.
        of: &'static str,
        /// Codes of a word.
        codes: usize,
    },
    /// An input belongs to no group.
    #[error("'{part}' says group {found} of input {input}, there are {groups}")]
    Group {
        /// What it is called after the module.
        part: &'static str,
        /// Input.
        input: usize,
        /// What stands there.
        found: i64,
        /// How many there are.
        groups: usize,
    },
    /// `weight_shape` says another shape.
    #[error("'weight_shape' says {found:?}, the weight in the checkpoint is {expected:?}")]
    SaidShape {
        /// What it says.
        found: Vec<i64>,
        /// The checkpoint's.
        expected: [usize; 2],
    },
    /// A scale is no number that can be multiplied by.
    #[error("'{part}' is {scale:?} at output {output}, group {group}")]
    Scale {
        /// What it is called after the module.
        part: &'static str,
        /// The scale.
        scale: f32,
        /// Output.
        output: usize,
        /// Group of inputs.
        group: usize,
    },
    /// A number that is stored as a float is none.
    #[error("row {output}: {error}")]
    Float {
        /// Row.
        output: usize,
        /// What is wrong with it.
        error: String,
    },
    /// The configuration does not say how it is packed.
    #[error("is packed, but no target of config_groups names the layer, or ignore does")]
    NotTargeted,
    /// Its words are not as many as codes of any size that is read fill.
    #[error("has {words} rows of words for {inputs} inputs: codes of 4 and 8 bits are read")]
    Words {
        /// Rows of words.
        words: usize,
        /// Width of the input.
        inputs: usize,
    },
}
