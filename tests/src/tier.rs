//! How much is tested: the short tier by default, the long one with `QERA_TEST_TIER=long`.
//!
//! A short form has fewer cases, repeats or layers than the long one, and fails for the same
//! reasons: bounds are the same in both. `./ci.sh test_long` runs the binaries whose sources name
//! this module, so that only they decide by it, not the library.

use std::env::VarError;

/// The one of two sizes (or lists) that the tier of this run takes.
///
/// # Panics
/// When `QERA_TEST_TIER` is neither `short` nor `long`: a misspelt tier must not pass for the other
/// one.
#[must_use]
pub fn cases<T>(short: T, long: T) -> T {
    match std::env::var("QERA_TEST_TIER").as_deref() {
        Err(VarError::NotPresent) | Ok("short") => short,
        Ok("long") => long,
        other => panic!("QERA_TEST_TIER is short or long, not {other:?}"),
    }
}
