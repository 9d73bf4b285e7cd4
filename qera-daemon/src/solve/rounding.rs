//! A correction as it is written: rounded to the asked type, or to a wider one where the asked type
//! loses too much or cannot hold it.

use qera_core::dtype::FloatDtype;

use crate::host::block_rounding::InBlocks;
use crate::host::core_time::{WorkKind, doing};
use crate::host::factor_type::FactorType;
use crate::host::factors::{Correction, Rounded};
use crate::judge::yardstick::Yardstick;
use crate::solve::solution::NotAsAsked;

/// A layer that loses more of f than this by rounding is written in a wider type,
const ROUNDING_LOSS_MAX: f64 = 1e-3;
/// unless the loss is less of the error without correction than this: then what is left of that
/// error, in the outputs themselves, is a thousandth of it in either case. A correction that is all
/// but exact need not be written in twice the bytes.
const LOSS_BESIDE_NO_CORRECTION: f64 = 1e-6;

/// A correction as it is written, and what it is worth.
pub(crate) struct Measured {
    pub(crate) error_with: f64,
    pub(crate) rounded: Rounded,
    /// Why the type is not the asked one; `None` where it is.
    pub(crate) not_as_asked: Option<NotAsAsked>,
    pub(crate) error_bf16: f64,
    /// The uncertainty of `error_with` that follows from R's.
    pub(crate) doubt: f64,
}

impl Measured {
    /// Rounds a correction and measures it before and after.
    pub(crate) fn new(
        asked: FactorType,
        correction: &Correction,
        yardstick: Yardstick<'_>,
    ) -> Self {
        doing(WorkKind::Measure, || Self::of(asked, correction, yardstick))
    }

    fn of(asked: FactorType, correction: &Correction, mut yardstick: Yardstick<'_>) -> Self {
        let error_with = yardstick.choose(correction);
        let doubt = yardstick.doubt(correction);
        let to_write = CorrectionToWrite {
            correction,
            yardstick,
            error_with,
        };
        let Written {
            of: Tried { rounded, near },
            not_as_asked,
        } = to_write.written(asked);
        let near = near.as_ref().unwrap_or(correction);
        let error_bf16 = if rounded.dtype == FactorType::Float(FloatDtype::Bf16) {
            rounded.error
        } else {
            yardstick.of_rounded(&rounded.in_bf16(), near)
        };
        Self {
            error_with,
            doubt,
            error_bf16,
            rounded,
            not_as_asked,
        }
    }
}

/// A correction that is to be rounded.
struct CorrectionToWrite<'a> {
    correction: &'a Correction,
    yardstick: Yardstick<'a>,
    error_with: f64,
}

/// Factors rounded to some type, and their f.
struct Tried {
    rounded: Rounded,
    /// The correction that the factors are close to, where it is not the one that was solved.
    near: Option<Correction>,
}

/// The factors that are written.
struct Written {
    of: Tried,
    not_as_asked: Option<NotAsAsked>,
}

impl CorrectionToWrite<'_> {
    /// The factors in the asked type, or in the first wider type that is good enough, with the
    /// reason why the asked one was not.
    fn written(&self, asked: FactorType) -> Written {
        let mut not_as_asked = None;
        for &dtype in asked.before_f32() {
            let reason = if dtype.holds_rows_of(self.correction.factors.a.nrows()) {
                let of = self.tried(dtype);
                if self.is_good(of.rounded.error) {
                    return Written { of, not_as_asked };
                }
                NotAsAsked::by_error(of.rounded.error)
            } else {
                NotAsAsked::NoWholeBlocks
            };
            not_as_asked.get_or_insert(reason);
        }
        Written {
            of: self.tried(FactorType::F32),
            not_as_asked,
        }
    }

    fn tried(&self, dtype: FactorType) -> Tried {
        let (mut rounded, near) = match dtype {
            FactorType::Float(_) => {
                let factors = &self.correction.factors;
                (doing(WorkKind::Round, || factors.round(dtype)), None)
            }
            FactorType::Q8_0 => {
                let in_blocks = || self.yardstick.in_blocks(self.correction);
                let InBlocks { near, rounded } = doing(WorkKind::Round, in_blocks);
                (rounded, Some(near))
            }
        };
        let close = near.as_ref().unwrap_or(self.correction);
        rounded.error = self.yardstick.of_rounded(&rounded, close);
        Tried { rounded, near }
    }

    /// Whether a type with this f loses so little that it is good enough.
    fn is_good(&self, error: f64) -> bool {
        let lost = error - self.error_with;
        // Massive channels have most of that error, and a correction takes all of theirs off. So
        // the part of the other channels counts.
        let without = self.yardstick.error_without.ordinary;
        let allowed = ROUNDING_LOSS_MAX * self.error_with;
        lost <= allowed.max(LOSS_BESIDE_NO_CORRECTION * without)
    }
}
