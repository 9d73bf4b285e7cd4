//! `error.in_asked_dtype` of the manifest: why a layer is not written in the type that was asked
//! for.

use serde_json::Value;

use crate::solve::solution::NotAsAsked;

/// The word in `error.in_asked_dtype` for a factor that overflows, where there is no error to
/// state.
const OVERFLOW: &str = "overflow";
const NO_WHOLE_BLOCKS: &str = "no-whole-blocks";

/// The reason, as the manifest states it.
#[must_use]
pub(crate) fn in_asked_dtype(reason: NotAsAsked) -> Value {
    match reason {
        NotAsAsked::Loses(error) => error.into(),
        NotAsAsked::Overflows => OVERFLOW.into(),
        NotAsAsked::NoWholeBlocks => NO_WHOLE_BLOCKS.into(),
    }
}

/// The reason that a manifest states.
#[must_use]
pub(crate) fn not_as_asked(in_asked_dtype: &Value) -> NotAsAsked {
    match in_asked_dtype.as_f64() {
        Some(error) => NotAsAsked::Loses(error),
        None if *in_asked_dtype == NO_WHOLE_BLOCKS => NotAsAsked::NoWholeBlocks,
        None => NotAsAsked::Overflows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_read_back() {
        for reason in [
            NotAsAsked::Loses(0.25),
            NotAsAsked::Overflows,
            NotAsAsked::NoWholeBlocks,
        ] {
            assert_eq!(not_as_asked(&in_asked_dtype(reason)), reason);
        }
        assert_eq!(NotAsAsked::by_error(f64::NAN), NotAsAsked::Overflows);
        assert_eq!(NotAsAsked::by_error(2.0), NotAsAsked::Loses(2.0));
    }
}
