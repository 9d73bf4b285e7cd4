//! Where W~ of a layer was found, before its numbers are looked at.

use crate::weights::passed_over::Why;

/// The result of looking for a layer's tensor.
#[derive(Debug)]
pub(crate) enum Placed<T> {
    /// The tensor.
    Here(T),
    /// The layer is left out.
    LeftOut(Why),
}

impl<T> Placed<T> {
    /// Applies `make` to the tensor and keeps the rest.
    pub(crate) fn map<U>(self, make: impl FnOnce(T) -> U) -> Placed<U> {
        match self {
            Self::Here(of) => Placed::Here(make(of)),
            Self::LeftOut(why) => Placed::LeftOut(why),
        }
    }
}
