//! Where W~ of a layer was found, before its numbers are looked at.

use crate::weights::passed_over::Why;

/// What was found of a layer.
#[derive(Debug)]
pub(crate) enum Placed<T> {
    /// Its tensor.
    Here(T),
    /// The layer is left out.
    LeftOut(Why),
}

impl<T> Placed<T> {
    /// The same as something else.
    pub(crate) fn map<U>(self, make: impl FnOnce(T) -> U) -> Placed<U> {
        match self {
            Self::Here(of) => Placed::Here(make(of)),
            Self::LeftOut(why) => Placed::LeftOut(why),
        }
    }
}
