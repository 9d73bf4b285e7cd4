//! Why bytes are no valid GGUF: where, what was found there, and what is allowed.

use core::fmt;

/// The most characters of a name that a message repeats; a file may claim a name of many megabytes.
const QUOTED_MAX: usize = 128;

/// Why the bytes are refused. It displays as a sentence that follows the file's path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub(crate) struct GgufError {
    /// The place in the file.
    pub(crate) place: GgufPlace,
    /// What is wrong at that place.
    pub(crate) problem: GgufProblem,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GgufPlace {
    /// Magic number, version and counts.
    Start,
    /// One of several parts of the header, whose name has not been read yet.
    Part {
        /// What the part is.
        what: &'static str,
        /// The part's index, counted from 0.
        index: u64,
    },
    /// A key.
    Key(Quoted),
    /// A tensor.
    Tensor(Quoted),
    /// A weight of an imatrix in the legacy form.
    Weight(Quoted),
    /// The bytes that follow the last weight of an imatrix in the legacy form.
    Trailer,
}

/// A name, shortened for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quoted(String);

impl Quoted {
    /// Shortens a name.
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

    /// Makes the error that says that there is a problem at this place.
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

/// What is wrong at a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum GgufProblem {
    /// The file is no GGUF.
    #[error("the file does not begin with \"GGUF\"")]
    Magic,
    /// The version is not read.
    #[error("version {0}; versions 2 and 3 are read")]
    Version(u32),
    /// The file was written on a machine of the other byte order.
    #[error(
        "the file is big-endian (its version reads as {0:#010x}); little-endian files of versions 2 and 3 are read"
    )]
    BigEndian(u32),
    /// The bytes end before what they announce.
    #[error("truncated at byte {at}: {wanted} bytes are announced, {left} are left")]
    Truncated {
        /// The position where the announced bytes begin.
        at: u64,
        /// The announced number of bytes.
        wanted: u64,
        /// The number of bytes that are left.
        left: u64,
    },
    /// A count is larger than the bytes can hold, or than any valid file has.
    #[error("{count} {what} are announced; {most} are the most that are possible here")]
    Count {
        /// What is counted.
        what: &'static str,
        /// The count in the file.
        count: u64,
        /// The largest count that is read.
        most: u64,
    },
    /// A name is empty or too long.
    #[error("its name has {bytes} bytes; 1 to {most} are allowed")]
    NameLength {
        /// The length in the file.
        bytes: u64,
        /// The longest name that is read.
        most: u64,
    },
    /// A name is no text.
    #[error("its name is not UTF-8 from byte {valid} on")]
    NameEncoding {
        /// The number of bytes that are text.
        valid: usize,
    },
    /// A name has a control character, which would garble what is printed.
    #[error("its name holds the control character U+{0:04X}")]
    NameControl(u32),
    /// A name occurs twice.
    #[error("it comes twice")]
    Twice,
    /// A value has an unknown type.
    #[error("its value has type {0}; types 0 to 12 are known")]
    ValueType(u32),
    /// A value is an array of arrays.
    #[error("it is an array of arrays; arrays of numbers, booleans and strings are read")]
    Nested,
    /// A boolean is neither 0 nor 1.
    #[error("its value {0} is no boolean: 0 or 1")]
    Boolean(u8),
    /// The alignment has another type than u32.
    #[error("its value has type {0}; an alignment is a u32, type 4")]
    AlignmentType(u32),
    /// The alignment is no power of two, or too large.
    #[error("{found} is no alignment: a power of two, at most {most}")]
    Alignment {
        /// The alignment in the file.
        found: u32,
        /// The largest alignment that is read.
        most: u32,
    },
    /// The writer does not take this key.
    #[error("what is written has the alignment 32, which needs no key")]
    AlignmentWritten,
    /// The size of the type is unknown, so that it cannot be written.
    #[error("type {0} is none of ggml's")]
    TypeUnknown(u32),
    /// A tensor has too many dimensions, or none.
    #[error("{0} dimensions; 1 to 4 are allowed")]
    Dimensions(u32),
    /// A dimension is 0.
    #[error("dimension {0} is 0; 1 is the least")]
    EmptyDimension(usize),
    /// The dimensions give more numbers than can be counted.
    #[error("dimensions {0:?} are more numbers or bytes than a file can have (2^63)")]
    Overflow(Vec<u64>),
    /// Rows end within a block.
    #[error(
        "rows of {row} numbers are no whole number of blocks of {block}, in which type {type_number} is stored"
    )]
    Row {
        /// The numbers of a row.
        row: u64,
        /// The numbers of a block.
        block: usize,
        /// The type's number.
        type_number: u32,
    },
    /// An offset is not aligned.
    #[error("its offset {offset} is no multiple of the alignment {alignment}")]
    Unaligned {
        /// The offset in the file.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// A tensor lies outside of the file.
    #[error("{bytes} bytes from byte {start} on reach past the end of the file, which has {found}")]
    Outside {
        /// The position where it should begin.
        start: u64,
        /// How many bytes the tensor has; 1 where that is unknown.
        bytes: u64,
        /// The file's length.
        found: u64,
    },
    /// Two tensors share bytes.
    #[error("begins at byte {start}, before tensor '{other}' ends at byte {end}")]
    Overlap {
        /// The position where this one begins.
        start: u64,
        /// The other tensor.
        other: Quoted,
        /// The position where the other one ends.
        end: u64,
    },
}
