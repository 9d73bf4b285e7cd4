//! The floating-point formats that rows and weights are stored in.

use core::fmt;
use half::{bf16, f16};

/// How a floating-point number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatDtype {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
}

impl FloatDtype {
    /// Says how many bytes a number takes.
    ///
    /// ```
    /// use qera_core::dtype::FloatDtype;
    /// assert_eq!((FloatDtype::F32.size_bytes(), FloatDtype::Bf16.size_bytes()), (4, 2));
    /// ```
    #[must_use]
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Names the dtype as the command line and the reports do.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Rounds to what a reader of this dtype will see: to nearest, ties to even, infinite when out
    /// of range.
    ///
    /// ```
    /// use qera_core::dtype::FloatDtype;
    /// assert_eq!(FloatDtype::F16.round(1.0 / 3.0), 0.333_251_95);
    /// assert_eq!(FloatDtype::Bf16.round(1.0 / 3.0), 0.333_984_38);
    /// assert_eq!(FloatDtype::F16.round(65_520.0), f32::INFINITY);
    /// ```
    #[must_use]
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::F16 => f16::from_f32(value).to_f32(),
            Self::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }
}

impl fmt::Display for FloatDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
