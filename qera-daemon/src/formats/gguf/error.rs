//! Why bytes are no sound GGUF: where in them, what was found there, and what is allowed.

use core::fmt;

/// Most characters of a name that a message repeats: a file may claim a name of many megabytes.
const QUOTED_MAX: usize = 128;

/// Why the bytes are refused; a sentence that goes after the file's path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub(crate) struct GgufError {
    /// Where.
    pub(crate) place: GgufPlace,
    /// What.
    pub(crate) problem: GgufProblem,
}

/// What of a file is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GgufPlace {
    /// Magic number, version and counts.
    Start,
    /// One of several whose name is not read yet.
    Part {
        /// What it is one of.
        what: &'static str,
        /// Counted from 0.
        index: u64,
    },
    /// A key.
    Key(Quoted),
    /// A tensor.
    Tensor(Quoted),
    /// A weight of an imatrix that is no GGUF.
    Weight(Quoted),
    /// What stands behind the last weight there.
    Trailer,
}

/// A name as a message repeats it: shortened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quoted(String);

impl Quoted {
    /// Of a name.
    pub(crate) fn new(name: &str) -> Self {
        let mut quoted: String = name.chars().take(QUOTED_MAX).collect();
        if quoted.len() < name.len() {
            quoted.push('…');
        }
        Self(quoted)
    }
}

impl GgufPlace {
    pub(crate) fn key(name: &str) -> Self {
        Self::Key(Quoted::new(name))
    }

    pub(crate) fn tensor(name: &str) -> Self {
        Self::Tensor(Quoted::new(name))
    }

    /// A refusal at this place.
    pub(crate) fn is(&self, problem: GgufProblem) -> GgufError {
        GgufError {
            place: self.clone(),
            problem,
        }
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for GgufPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("GGUF header"),
            Self::Part { what, index } => write!(f, "{what} {index} (counted from 0)"),
            Self::Key(name) => write!(f, "key '{name}'"),
            Self::Tensor(name) => write!(f, "tensor '{name}'"),
            Self::Weight(name) => write!(f, "weight '{name}'"),
            Self::Trailer => f.write_str("end of the imatrix"),
        }
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum GgufProblem {
    /// Something else than GGUF.
    #[error("the file does not begin with \"GGUF\"")]
    Magic,
    /// A version that is not read.
    #[error("version {0}; versions 2 and 3 are read")]
    Version(u32),
    /// Written by a machine of the other byte order.
    #[error(
        "the file is big-endian (its version reads as {0:#010x}); little-endian files of versions 2 and 3 are read"
    )]
    BigEndian(u32),
    /// The bytes end before what they announce.
    #[error("truncated at byte {at}: {wanted} bytes are announced, {left} are left")]
    Truncated {
        /// Where the announced bytes begin.
        at: u64,
        /// How many there should be.
        wanted: u64,
        /// How many there are.
        left: u64,
    },
    /// More than the bytes can hold, or than any sound file has.
    #[error("{count} {what} are announced; {most} are the most that are possible here")]
    Count {
        /// Of what.
        what: &'static str,
        /// As the file claims.
        count: u64,
        /// Most that are read.
        most: u64,
    },
    /// A name of no bytes, or of too many.
    #[error("its name has {bytes} bytes; 1 to {most} are allowed")]
    NameLength {
        /// As the file claims.
        bytes: u64,
        /// Most that are read.
        most: u64,
    },
    /// A name that is no text.
    #[error("its name is not UTF-8 from byte {valid} on")]
    NameEncoding {
        /// Bytes that are.
        valid: usize,
    },
    /// A name that would garble what is printed.
    #[error("its name holds the control character U+{0:04X}")]
    NameControl(u32),
    /// Two of one name.
    #[error("it comes twice")]
    Twice,
    /// A value of unknown type.
    #[error("its value has type {0}; types 0 to 12 are known")]
    ValueType(u32),
    /// An array of arrays.
    #[error("it is an array of arrays; arrays of numbers, booleans and strings are read")]
    Nested,
    /// A boolean that is neither.
    #[error("its value {0} is no boolean: 0 or 1")]
    Boolean(u8),
    /// An alignment of another type.
    #[error("its value has type {0}; an alignment is a u32, type 4")]
    AlignmentType(u32),
    /// No alignment.
    #[error("{found} is no alignment: a power of two, at most {most}")]
    Alignment {
        /// As the file claims.
        found: u32,
        /// Largest that is read.
        most: u32,
    },
    /// A key that the writer does not take.
    #[error("what is written has the alignment 32, which needs no key")]
    AlignmentWritten,
    /// A type that cannot be written, since its size is not known.
    #[error("type {0} is none of ggml's")]
    TypeUnknown(u32),
    /// Too many dimensions, or none.
    #[error("{0} dimensions; 1 to 4 are allowed")]
    Dimensions(u32),
    /// A dimension of nothing.
    #[error("dimension {0} is 0; 1 is the least")]
    EmptyDimension(usize),
    /// More numbers than can be counted.
    #[error("dimensions {0:?} are more numbers or bytes than a file can have (2^63)")]
    Overflow(Vec<u64>),
    /// Rows that end within a block.
    #[error(
        "rows of {row} numbers are no whole number of blocks of {block}, in which type {type_number} is stored"
    )]
    Row {
        /// Numbers of a row.
        row: u64,
        /// Numbers of a block.
        block: usize,
        /// Number of the type.
        type_number: u32,
    },
    /// A place that is not aligned.
    #[error("its offset {offset} is no multiple of the alignment {alignment}")]
    Unaligned {
        /// As the file claims.
        offset: u64,
        /// The file's.
        alignment: u64,
    },
    /// A place outside of the file.
    #[error("{bytes} bytes from byte {start} on reach past the end of the file, which has {found}")]
    Outside {
        /// Where it should begin in the file.
        start: u64,
        /// Its bytes; 1 where they are not known.
        bytes: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// Two tensors that share bytes.
    #[error("begins at byte {start}, before tensor '{other}' ends at byte {end}")]
    Overlap {
        /// Where it begins in the file.
        start: u64,
        /// Whose bytes these are.
        other: Quoted,
        /// Where that one ends.
        end: u64,
    },
}
