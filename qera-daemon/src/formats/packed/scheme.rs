//! How one weight is packed.

use core::fmt;

use safetensors::Dtype;

/// Bits of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bits {
    /// 4.
    Four,
    /// 8.
    Eight,
}

impl Bits {
    /// The width of codes with this many bits, if such codes are read.
    #[must_use]
    pub(crate) const fn of(bits: u64) -> Option<Self> {
        match bits {
            4 => Some(Self::Four),
            8 => Some(Self::Eight),
            _ => None,
        }
    }

    /// The number of bits.
    #[must_use]
    pub(crate) const fn count(self) -> u32 {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// Codes of a word.
    #[must_use]
    pub(crate) const fn per_word(self) -> usize {
        match self {
            Self::Four => 8,
            Self::Eight => 4,
        }
    }

    /// The code in the middle: the zero point of a symmetric grid.
    #[must_use]
    pub(crate) const fn middle(self) -> i32 {
        match self {
            Self::Four => 8,
            Self::Eight => 128,
        }
    }

    /// The largest code.
    #[must_use]
    pub(crate) const fn mask(self) -> u32 {
        match self {
            Self::Four => 0xf,
            Self::Eight => 0xff,
        }
    }

    /// A word of codes that are all one.
    #[must_use]
    pub(crate) const fn ones(self) -> u32 {
        match self {
            Self::Four => 0x1111_1111,
            Self::Eight => 0x0101_0101,
        }
    }
}

/// Inputs that share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputGroups {
    /// A group has this many neighbouring inputs.
    Size(usize),
    /// A group has all inputs of an output.
    Channel,
}

impl InputGroups {
    /// Groups of so many inputs.
    #[must_use]
    pub(crate) const fn count(self, inputs: usize) -> usize {
        match self {
            Self::Size(size) => inputs.div_ceil(size),
            Self::Channel => 1,
        }
    }

    /// The group of an input.
    #[must_use]
    pub(crate) const fn of(self, input: usize) -> usize {
        match self {
            Self::Size(size) => input / size,
            Self::Channel => 0,
        }
    }
}

/// How GPTQ's zero points are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ZeroReading {
    /// Zero points are stored as they are (`gptq_v2`).
    AsStored,
    /// One less (`gptq`): one is added to each field of a word, carried from field to field as the
    /// subtraction that made it borrowed.
    OneLess,
}

impl ZeroReading {
    /// The other one.
    #[must_use]
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::AsStored => Self::OneLess,
            Self::OneLess => Self::AsStored,
        }
    }

    /// For log and manifest.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AsStored => "as-stored",
            Self::OneLess => "stored-minus-one",
        }
    }
}

/// How the codes of a weight lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CodeLayout {
    /// As compressed-tensors stores them: output after output, with the codes of neighbouring
    /// inputs in a word.
    CompressedTensors {
        /// Whether the middle code is zero; else each group has a zero point.
        symmetric: bool,
        /// Whether a list says which input is of which group.
        ordered: bool,
    },
    /// As GPTQ stores them: input after input, with the codes of neighbouring inputs in a word.
    Gptq {
        /// How zero points are read.
        zeros: ZeroReading,
        /// Whether a list must say which input is of which group.
        ordered: bool,
    },
    /// As AWQ's GEMM stores them: input after input, with the codes of eight outputs in a word, but
    /// not in the outputs' order.
    Awq {
        /// Whether the middle code is zero; else each group has a zero point.
        symmetric: bool,
    },
}

/// How one weight is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scheme {
    /// How its codes lie.
    pub(crate) layout: CodeLayout,
    /// Bits of a code.
    pub(crate) bits: Bits,
    /// Inputs that share a scale.
    pub(crate) grouping: InputGroups,
}

impl Scheme {
    /// In words for manifest and plan: `int4/128/bf16`, `int8/channel/f16/zero-points`.
    #[must_use]
    pub(crate) fn described(self, scales: Dtype) -> String {
        let zeros = match self.layout {
            CodeLayout::CompressedTensors { symmetric, .. } | CodeLayout::Awq { symmetric } => {
                !symmetric
            }
            CodeLayout::Gptq { .. } => true,
        };
        let dtype = scales.to_string().to_lowercase();
        let zeros = if zeros { "/zero-points" } else { "" };
        format!("{self}/{dtype}{zeros}")
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.grouping {
            InputGroups::Size(size) => write!(f, "int{}/{size}", self.bits.count()),
            InputGroups::Channel => write!(f, "int{}/channel", self.bits.count()),
        }
    }
}
