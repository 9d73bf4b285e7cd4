//! A correction as it is written: rounded to the asked dtype, or to f32 where that would lose too
//! much.

use qera_core::dtype::FloatDtype;

use crate::host::factors::{Correction, Rounded};
use crate::judge::yardstick::Yardstick;

/// A layer that loses more of f than this by rounding is written f32,
const ROUNDING_LOSS_MAX: f64 = 1e-3;
/// unless the loss is less of the error without correction than this: then what is left of that
/// error, in the outputs themselves, is a thousandth of it in either case. A correction that is all
/// but exact need not be written in twice the bytes.
const LOSS_BESIDE_NO_CORRECTION: f64 = 1e-6;

/// A correction as it is written, and what it is worth.
pub(crate) struct Measured {
    pub(crate) error_with: f64,
    pub(crate) rounded: Rounded,
    /// Set where the asked dtype lost too much: f in it.
    pub(crate) error_in_asked_dtype: Option<f64>,
    pub(crate) error_bf16: f64,
    /// How far `error_with` may be off because R is.
    pub(crate) doubt: f64,
}

impl Measured {
    /// Rounds a correction and measures it before and after.
    pub(crate) fn new(
        asked: FloatDtype,
        correction: &Correction,
        mut yardstick: Yardstick<'_>,
    ) -> Self {
        let error_with = yardstick.choose(correction);
        let Written {
            rounded,
            error_in_asked_dtype,
        } = round(asked, correction, &yardstick, error_with);
        Self {
            error_with,
            doubt: yardstick.doubt(correction),
            error_bf16: yardstick.of_rounded(&rounded.in_bf16(), correction),
            rounded,
            error_in_asked_dtype,
        }
    }
}

/// What is written.
struct Written {
    rounded: Rounded,
    error_in_asked_dtype: Option<f64>,
}

/// The factors in the asked dtype, or in f32 where that would lose too much; f in the asked one is
/// returned then.
fn round(
    asked: FloatDtype,
    correction: &Correction,
    yardstick: &Yardstick<'_>,
    error_with: f64,
) -> Written {
    let measured = |dtype| {
        let mut rounded = correction.factors.round(dtype);
        rounded.error = yardstick.of_rounded(&rounded, correction);
        rounded
    };
    let rounded = measured(asked);
    let lost = rounded.error - error_with;
    // Massive channels have most of that error, and a correction takes off all that they have: what
    // counts is the part of the others.
    let without = yardstick.error_without.ordinary;
    let allowed = (ROUNDING_LOSS_MAX * error_with).max(LOSS_BESIDE_NO_CORRECTION * without);
    let too_much = lost.is_nan() || lost > allowed;
    if !too_much || asked == FloatDtype::F32 {
        return Written {
            rounded,
            error_in_asked_dtype: None,
        };
    }
    Written {
        rounded: measured(FloatDtype::F32),
        error_in_asked_dtype: Some(rounded.error),
    }
}
