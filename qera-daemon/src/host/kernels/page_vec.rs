//! Arrays for many numbers: zeroed, aligned to a cache line so that no vector load touches two, and
//! in huge pages where the system gives them. Freed arrays go to the next array of the same size or
//! back to the system (`pages`), because what an allocator would keep of R and E is in no plan.
//!
//! A solve writes R and E once in f32 and reads them some twenty times. With pages of 4 KiB the
//! first touch of that memory costs a fifth of a warm solve at 4096 x 4096; with pages of 2 MiB it
//! is not noticeable.

use core::ops::{Deref, DerefMut};

use bytemuck::Pod;

use crate::host::kernels::pages::Pages;

const LINE_BYTES: usize = 64;
/// Arrays of this size or more are mapped.
const MAPPED_BYTES: usize = 512 << 10;

/// An array that does not grow.
#[derive(Debug)]
pub struct PageVec<T> {
    memory: Memory<T>,
    from: usize,
    length: usize,
}

#[derive(Debug)]
enum Memory<T> {
    Heap(Vec<T>),
    Pages(Pages),
}

impl<T: Pod> PageVec<T> {
    /// A vector of this many zeros.
    #[must_use]
    pub fn zeroed(length: usize) -> Self {
        Self::mapped(length, Pages::zeroed)
    }

    /// An array of any content, for callers that write each number before it is read: large arrays
    /// are not zeroed for nothing.
    pub(crate) fn unwritten(length: usize) -> Self {
        Self::mapped(length, Pages::unwritten)
    }

    fn mapped(length: usize, pages: fn(usize) -> Option<Pages>) -> Self {
        let bytes = length * size_of::<T>();
        if bytes >= MAPPED_BYTES
            && let Some(pages) = pages(bytes)
        {
            return Self {
                memory: Memory::Pages(pages),
                from: 0,
                length,
            };
        }
        let spare = LINE_BYTES / size_of::<T>();
        let heap = vec![T::zeroed(); length + spare];
        Self {
            // A pointer that cannot be aligned costs speed only.
            from: heap.as_ptr().align_offset(LINE_BYTES).min(spare),
            memory: Memory::Heap(heap),
            length,
        }
    }
}

impl<T: Pod> Deref for PageVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.memory {
            Memory::Heap(heap) => &heap[self.from..self.from + self.length],
            Memory::Pages(pages) => &bytemuck::cast_slice(pages)[..self.length],
        }
    }
}

impl<T: Pod> DerefMut for PageVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.memory {
            Memory::Heap(heap) => &mut heap[self.from..self.from + self.length],
            Memory::Pages(pages) => &mut bytemuck::cast_slice_mut(pages)[..self.length],
        }
    }
}

impl<T> PageVec<T> {
    /// Keeps the first `length` numbers, in the same memory.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}

impl PageVec<u8> {
    /// The bytes as numbers in this machine's order. Large arrays stay where they lie; bytes behind
    /// the last whole number are left out.
    pub(crate) fn into_numbers<T: Pod>(self) -> PageVec<T> {
        let length = self.length / size_of::<T>();
        if let Memory::Pages(pages) = self.memory {
            return PageVec {
                memory: Memory::Pages(pages),
                from: 0,
                length,
            };
        }
        let mut numbers = PageVec::unwritten(length);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut numbers);
        bytes.copy_from_slice(&self[..length * size_of::<T>()]);
        numbers
    }
}

impl<T: Pod> From<Vec<T>> for PageVec<T> {
    /// A vector that keeps the numbers where they are.
    fn from(heap: Vec<T>) -> Self {
        Self {
            from: 0,
            length: heap.len(),
            memory: Memory::Heap(heap),
        }
    }
}

impl<T: Pod> Clone for PageVec<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::unwritten(self.length);
        copy.copy_from_slice(self);
        copy
    }
}

impl<T: Pod + PartialEq> PartialEq for PageVec<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod> Default for PageVec<T> {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

/// Numbers that are either lent or owned.
#[derive(Debug)]
pub(crate) enum Floats<'a> {
    /// Numbers that belong to somebody else.
    Lent(&'a [f32]),
    /// Numbers that were made for this.
    Owned(PageVec<f32>),
}

impl Deref for Floats<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Lent(values) => values,
            Self::Owned(values) => values,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_are_aligned_zeros() {
        for length in [0, 1, 100, MAPPED_BYTES / 4, MAPPED_BYTES] {
            let mut numbers = PageVec::<f32>::zeroed(length);
            assert_eq!(numbers.len(), length);
            assert!(length == 0 || numbers.as_ptr().align_offset(LINE_BYTES) == 0);
            assert!(numbers.iter().all(|x| x.to_bits() == 0));
            numbers.fill(1.0);
            assert!(numbers.iter().all(|x| x.to_bits() == 1.0_f32.to_bits()));
            assert!(numbers.clone() == numbers && PageVec::from(numbers.to_vec()) == numbers);
            let mut written = PageVec::<f32>::unwritten(length);
            assert!(length == 0 || written.as_ptr().align_offset(LINE_BYTES) == 0);
            written.copy_from_slice(&numbers);
            assert!(written == numbers);
        }
    }

    #[test]
    fn bytes_are_numbers_wherever_they_lie() {
        for length in [0, 3, 1000, MAPPED_BYTES / 8, MAPPED_BYTES] {
            let values: Vec<f64> = (0..length).map(|i| i as f64 - 0.5).collect();
            let mut bytes = PageVec::unwritten(8 * length + 5);
            bytes[..8 * length].copy_from_slice(bytemuck::cast_slice(&values));
            let numbers: PageVec<f64> = bytes.into_numbers();
            assert!(numbers[..] == values[..], "{length}");
        }
    }
}
