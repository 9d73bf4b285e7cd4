//! Lent scratch memory, checked once and then cut into named parts.

use core::fmt;

/// The lent workspace is shorter than the routine's `..._workspace_len` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkspaceTooSmall {
    /// Number of `f64` the routine needs; `usize::MAX` when the sizes overflow the address space.
    pub needed: usize,
    /// Number of `f64` lent.
    pub lent: usize,
}

impl fmt::Display for WorkspaceTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the workspace must hold {} f64, but holds {}",
            self.needed, self.lent
        )
    }
}

impl core::error::Error for WorkspaceTooSmall {}

/// A checked workspace. `take` hands out disjoint parts in order; their sizes add up to the checked length.
#[derive(Debug)]
pub(crate) struct Workspace<'w>(&'w mut [f64]);

impl<'w> Workspace<'w> {
    pub(crate) const fn new(lent: &'w mut [f64], needed: usize) -> Result<Self, WorkspaceTooSmall> {
        if lent.len() < needed {
            return Err(WorkspaceTooSmall {
                needed,
                lent: lent.len(),
            });
        }
        Ok(Self(lent))
    }

    pub(crate) fn take(&mut self, len: usize) -> &'w mut [f64] {
        let (part, rest) = core::mem::take(&mut self.0).split_at_mut(len);
        self.0 = rest;
        part
    }
}
