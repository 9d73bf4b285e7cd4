//! One packed weight: its tensors checked against its widths, and its numbers.

use safetensors::Dtype;

use crate::formats::packed::error::PackedError;
use crate::formats::packed::part::{PackedPart, ScaleNumbers, Words};
use crate::formats::packed::scheme::{Bits, CodeLayout, Scheme, ZeroReading};

/// Where AWQ keeps eight neighbours in a word, by their place among the eight.
const AWQ_ORDER: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// The tensors of a weight, as far as they are there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackedParts<'a> {
    /// Codes.
    pub(crate) codes: PackedPart<'a>,
    /// Scales.
    pub(crate) scales: Option<PackedPart<'a>>,
    /// Zero points.
    pub(crate) zeros: Option<PackedPart<'a>>,
    /// Groups of inputs.
    pub(crate) groups: Option<PackedPart<'a>>,
    /// The shape that it says it has.
    pub(crate) said_shape: Option<PackedPart<'a>>,
}

/// The widths of a weight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Widths {
    /// The width of its input, m.
    pub(crate) inputs: usize,
    /// The width of its output, n.
    pub(crate) outputs: usize,
}

/// A weight whose tensors are what they should be.
#[derive(Debug)]
pub(crate) struct PackedWeight<'a> {
    scheme: Scheme,
    widths: Widths,
    groups: usize,
    codes: Words<'a>,
    scales: ScaleNumbers<'a>,
    zeros: Zeros<'a>,
    /// The group of each input.
    group_of: Vec<usize>,
}

/// Zero points.
#[derive(Debug, Clone, Copy)]
enum Zeros<'a> {
    /// The middle code.
    Middle,
    /// Packed.
    Packed(Words<'a>),
    /// Zero points as signed bytes, relative to the middle code.
    Bytes(&'a [u8]),
}

/// Where the codes of one output lie.
struct Lane {
    start: usize,
    stride: usize,
    /// Inputs of a word.
    inputs: usize,
    shift: u32,
}

impl<'a> PackedWeight<'a> {
    /// Checks the tensors.
    ///
    /// # Errors
    /// [`PackedError`]: a tensor is missing, or is not of the type or shape that widths, bits and
    /// groups ask for; an input belongs to no group.
    pub(crate) fn new(
        scheme: Scheme,
        widths: Widths,
        parts: PackedParts<'a>,
    ) -> Result<Self, PackedError> {
        let Widths { inputs, outputs } = widths;
        let groups = scheme.grouping.count(inputs);
        let why = format!("{outputs} outputs, {inputs} inputs, {scheme}");
        let scales = parts.scales.ok_or(PackedError::Missing {
            part: scale_name(scheme.layout),
            why: "every packed weight needs its scales",
        })?;
        let codes = parts.codes.words(code_shape(scheme, widths)?, &why)?;
        let scale_shape = match scheme.layout {
            CodeLayout::CompressedTensors { .. } => [outputs, groups],
            CodeLayout::Gptq { .. } | CodeLayout::Awq { .. } => [groups, outputs],
        };
        if let CodeLayout::CompressedTensors { .. } = scheme.layout {
            check_said_shape(parts.said_shape, widths)?;
        }
        Ok(Self {
            scheme,
            widths,
            groups,
            codes,
            scales: scales.floats(scale_shape, &why)?,
            zeros: Zeros::new(scheme, widths, parts.zeros, &why)?,
            group_of: groups_of(scheme, widths, groups, parts.groups)?,
        })
    }

    /// Columns of W~ from one on (an output each), as many as `values` takes.
    ///
    /// # Errors
    /// [`PackedError::Scale`] for a scale that is NaN or infinite, or makes numbers that are.
    pub(crate) fn columns(&self, first: usize, values: &mut [f32]) -> Result<(), PackedError> {
        let (bits, mask) = (self.scheme.bits.count(), self.scheme.bits.mask());
        let mut grid = vec![GroupGrid::default(); self.groups];
        let columns = values.chunks_exact_mut(self.widths.inputs);
        for (output, values) in (first..).zip(columns) {
            for (group, of) in grid.iter_mut().enumerate() {
                *of = self.grid_of(output, group)?;
            }
            let Lane {
                start,
                stride,
                inputs,
                shift,
            } = self.lane(output);
            let words = values.chunks_mut(inputs).enumerate();
            let mut groups = self.group_of.iter();
            for (at, values) in words {
                let mut word = self.codes.at(start + at * stride) >> shift;
                for (value, group) in values.iter_mut().zip(&mut groups) {
                    let GroupGrid { zero, scale } = grid[*group];
                    // The difference is an integer of 9 bits, and exact.
                    *value = ((word & mask) as i32 - zero) as f32 * scale;
                    word >>= bits;
                }
            }
        }
        Ok(())
    }

    /// The scale of an output's group.
    #[must_use]
    pub(crate) fn scale(&self, output: usize, group: usize) -> f32 {
        let index = match self.scheme.layout {
            CodeLayout::CompressedTensors { .. } => output * self.groups + group,
            CodeLayout::Gptq { .. } | CodeLayout::Awq { .. } => {
                group * self.widths.outputs + output
            }
        };
        self.scales.at(index)
    }

    /// Groups of inputs.
    #[must_use]
    pub(crate) const fn groups(&self) -> usize {
        self.groups
    }

    /// The group of each input.
    #[must_use]
    pub(crate) fn group_of(&self) -> &[usize] {
        &self.group_of
    }

    fn grid_of(&self, output: usize, group: usize) -> Result<GroupGrid, PackedError> {
        let scale = self.scale(output, group);
        let zero = self.zeros.at(self, output, group);
        // No code is farther from a zero point than that.
        let largest = 2.0 * self.scheme.bits.mask() as f32;
        if !(scale * largest).is_finite() {
            return Err(PackedError::Scale {
                part: scale_name(self.scheme.layout),
                scale,
                output,
                group,
            });
        }
        Ok(GroupGrid { zero, scale })
    }

    fn lane(&self, output: usize) -> Lane {
        let Widths { inputs, outputs } = self.widths;
        let per_word = self.scheme.bits.per_word();
        match self.scheme.layout {
            CodeLayout::CompressedTensors { .. } => Lane {
                start: output * inputs.div_ceil(per_word),
                stride: 1,
                inputs: per_word,
                shift: 0,
            },
            CodeLayout::Gptq { .. } => Lane {
                start: output,
                stride: outputs,
                inputs: per_word,
                shift: 0,
            },
            CodeLayout::Awq { .. } => Lane {
                start: output / per_word,
                stride: outputs / per_word,
                inputs: 1,
                shift: awq_shift(output),
            },
        }
    }
}

/// What the codes of an output's group mean.
#[derive(Debug, Clone, Copy, Default)]
struct GroupGrid {
    zero: i32,
    scale: f32,
}

impl<'a> Zeros<'a> {
    fn new(
        scheme: Scheme,
        widths: Widths,
        part: Option<PackedPart<'a>>,
        why: &str,
    ) -> Result<Self, PackedError> {
        let Widths { inputs, outputs } = widths;
        let groups = scheme.grouping.count(inputs);
        let per_word = scheme.bits.per_word();
        let missing = |part| PackedError::Missing {
            part,
            why: "the configuration says that there are zero points",
        };
        match scheme.layout {
            CodeLayout::CompressedTensors {
                symmetric: true, ..
            }
            | CodeLayout::Awq { symmetric: true } => Ok(Self::Middle),
            CodeLayout::CompressedTensors { .. } => {
                let part = part.ok_or(missing("weight_zero_point"))?;
                if part.dtype == Dtype::I8 {
                    // Some versions did not pack the zero points.
                    part.has([outputs, groups], why)?;
                    return Ok(Self::Bytes(part.bytes));
                }
                part.words([outputs.div_ceil(per_word), groups], why)
                    .map(Self::Packed)
            }
            CodeLayout::Gptq { .. } | CodeLayout::Awq { .. } => {
                let part = part.ok_or(missing("qzeros"))?;
                let words = whole_words(outputs, "outputs", scheme.bits)?;
                part.words([groups, words], why).map(Self::Packed)
            }
        }
    }

    /// The zero point of an output's group, as a code.
    fn at(self, of: &PackedWeight<'_>, output: usize, group: usize) -> i32 {
        let bits = of.scheme.bits;
        let per_word = bits.per_word();
        let words = match self {
            Self::Middle => return bits.middle(),
            Self::Bytes(bytes) => {
                let byte = bytes.get(output * of.groups + group).copied();
                return bits.middle() + i32::from(byte.unwrap_or_default().cast_signed());
            }
            Self::Packed(words) => words,
        };
        let along = group * (of.widths.outputs / per_word) + output / per_word;
        let place = u32::try_from(output % per_word).unwrap_or_default();
        let field = place * bits.count();
        let code = match of.scheme.layout {
            CodeLayout::CompressedTensors { .. } => {
                words.at(output / per_word * of.groups + group) >> field
            }
            CodeLayout::Gptq {
                zeros: ZeroReading::AsStored,
                ..
            } => words.at(along) >> field,
            CodeLayout::Gptq {
                zeros: ZeroReading::OneLess,
                ..
            } => words.at(along).wrapping_add(bits.ones()) >> field,
            CodeLayout::Awq { .. } => words.at(along) >> awq_shift(output),
        };
        (code & bits.mask()) as i32
    }
}

const fn awq_shift(output: usize) -> u32 {
    4 * AWQ_ORDER[output % AWQ_ORDER.len()]
}

const fn scale_name(layout: CodeLayout) -> &'static str {
    match layout {
        CodeLayout::CompressedTensors { .. } => "weight_scale",
        CodeLayout::Gptq { .. } | CodeLayout::Awq { .. } => "scales",
    }
}

fn whole_words(width: usize, of: &'static str, bits: Bits) -> Result<usize, PackedError> {
    let codes = bits.per_word();
    if !width.is_multiple_of(codes) {
        return Err(PackedError::Width { width, of, codes });
    }
    Ok(width / codes)
}

/// The shape of the words of codes.
fn code_shape(scheme: Scheme, widths: Widths) -> Result<[usize; 2], PackedError> {
    let Widths { inputs, outputs } = widths;
    Ok(match scheme.layout {
        // The last word of a row may be filled up.
        CodeLayout::CompressedTensors { .. } => [outputs, inputs.div_ceil(scheme.bits.per_word())],
        CodeLayout::Gptq { .. } => [whole_words(inputs, "inputs", scheme.bits)?, outputs],
        CodeLayout::Awq { .. } => [inputs, whole_words(outputs, "outputs", scheme.bits)?],
    })
}

fn check_said_shape(part: Option<PackedPart<'_>>, widths: Widths) -> Result<(), PackedError> {
    let part = part.ok_or(PackedError::Missing {
        part: "weight_shape",
        why: "it says how many codes of a row's last word count",
    })?;
    let found = part.integers()?;
    let expected = [widths.outputs, widths.inputs];
    let fits = |(found, expected): (&i64, &usize)| usize::try_from(*found) == Ok(*expected);
    if found.len() != expected.len() || !found.iter().zip(&expected).all(fits) {
        return Err(PackedError::SaidShape { found, expected });
    }
    Ok(())
}

/// The group of each input: from the stored list if there is one, otherwise by the inputs' order.
fn groups_of(
    scheme: Scheme,
    widths: Widths,
    groups: usize,
    part: Option<PackedPart<'_>>,
) -> Result<Vec<usize>, PackedError> {
    let (ordered, name) = match scheme.layout {
        CodeLayout::CompressedTensors { ordered, .. } => (ordered, "weight_g_idx"),
        CodeLayout::Gptq { ordered, .. } => (ordered, "g_idx"),
        CodeLayout::Awq { .. } => (false, "g_idx"),
    };
    let in_order = || (0..widths.inputs).map(|input| scheme.grouping.of(input));
    let Some(part) = part else {
        if ordered && groups > 1 {
            return Err(PackedError::Missing {
                part: name,
                why: "the configuration says that inputs were quantized in another order",
            });
        }
        return Ok(in_order().collect());
    };
    let found = part.integers()?;
    if part.shape != [widths.inputs] {
        return Err(PackedError::Shape {
            part: name,
            found: part.shape.to_vec(),
            expected: vec![widths.inputs],
            why: "a group of each input".into(),
        });
    }
    // compressed-tensors' word for: in their order.
    if found.iter().all(|group| *group == -1) {
        return Ok(in_order().collect());
    }
    let group_of = |(input, found): (usize, &i64)| {
        let group = usize::try_from(*found).ok();
        group
            .filter(|group| *group < groups)
            .ok_or(PackedError::Group {
                part: name,
                input,
                found: *found,
                groups,
            })
    };
    found.iter().enumerate().map(group_of).collect()
}
