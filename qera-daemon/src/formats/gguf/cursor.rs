//! Reads numbers and names from bytes, one after the other, and never past the end.

use crate::formats::gguf::error::{GgufError, GgufPlace, GgufProblem};

/// The most bytes of a name. The format allows 65,535 for a key and 64 for a tensor, but tensors of
/// an imatrix are longer.
pub(crate) const NAME_MAX: u64 = 65_535;

/// A position in bytes.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Cursor<'b> {
    /// A cursor at the first byte.
    pub(crate) const fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The number of bytes that were read.
    pub(crate) const fn position(&self) -> usize {
        self.at
    }

    /// The bytes from an earlier position up to here.
    pub(crate) fn since(&self, position: usize) -> &'b [u8] {
        self.bytes.get(position..self.at).unwrap_or_default()
    }

    /// The number of bytes that are left.
    pub(crate) const fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`GgufProblem::Truncated`] at `place`.
    pub(crate) fn take(&mut self, count: u64, place: &GgufPlace) -> Result<&'b [u8], GgufError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = usize::try_from(count).ok().and_then(|n| rest.get(..n));
        let Some(taken) = taken else {
            return Err(place.is(GgufProblem::Truncated {
                at: self.at as u64,
                wanted: count,
                left: rest.len() as u64,
            }));
        };
        self.at += taken.len();
        Ok(taken)
    }

    /// The next `N` bytes, as [`take`](Self::take).
    pub(crate) fn array<const N: usize>(
        &mut self,
        place: &GgufPlace,
    ) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, place)?);
        Ok(array)
    }

    /// Reads a u32 in the way of [`take`](Self::take).
    pub(crate) fn u32(&mut self, place: &GgufPlace) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(place)?))
    }

    /// Reads a u64 in the way of [`take`](Self::take).
    pub(crate) fn u64(&mut self, place: &GgufPlace) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(place)?))
    }

    /// Reads the bytes of a string in the way of [`take`](Self::take).
    pub(crate) fn string(&mut self, place: &GgufPlace) -> Result<&'b [u8], GgufError> {
        let count = self.u64(place)?;
        self.take(count, place)
    }

    /// Reads a string that is a name.
    ///
    /// # Errors
    /// Those of [`take`](Self::take), and a name that is empty, too long, no text, or has control
    /// characters.
    pub(crate) fn name(&mut self, place: &GgufPlace) -> Result<&'b str, GgufError> {
        let bytes = self.u64(place)?;
        if bytes == 0 || bytes > NAME_MAX {
            let most = NAME_MAX;
            return Err(place.is(GgufProblem::NameLength { bytes, most }));
        }
        sound_name(self.take(bytes, place)?).map_err(|problem| place.is(problem))
    }
}

/// Checks that a name can be printed.
///
/// # Errors
/// [`GgufProblem::NameEncoding`], [`GgufProblem::NameControl`].
pub(crate) fn sound_name(bytes: &[u8]) -> Result<&str, GgufProblem> {
    let name = core::str::from_utf8(bytes).map_err(|error| GgufProblem::NameEncoding {
        valid: error.valid_up_to(),
    })?;
    match name.chars().find(|c| c.is_control()) {
        Some(control) => Err(GgufProblem::NameControl(control.into())),
        None => Ok(name),
    }
}
