//! Mapped pages, used again.
//!
//! A solve maps some ten arrays of 1 to 10 MiB and is done with them in milliseconds: of layers of
//! 576 x 1536 a third of the time went to the system, which zeroes a page when it is first touched.
//! So pages that are free again are kept, for the next array that takes exactly as many.
//!
//! That never raises the peak: what is kept and what is in use are together at most what was in use
//! at one time before, so that no plan has to count it; and at most [`KEPT_BYTES`] are kept. What
//! was freed first goes first. The process has one pool, because arrays are made where nothing else
//! is known: by whoever reads a file, decodes a weight or solves.

use core::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use memmap2::{Advice, MmapMut};

/// What is kept at most: all that a solve of 1536 x 576 has at one time.
const KEPT_BYTES: usize = 64 << 20;
/// The unit of sizes.
const PAGE_BYTES: usize = 4 << 10;

static POOL: Mutex<Pool> = Mutex::new(Pool::new());

fn pool<T>(work: impl FnOnce(&mut Pool) -> T) -> T {
    work(&mut POOL.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Gives back what is kept. Whoever begins work of another kind says so: a plan takes the larger of
/// two stages, and the heap of the next one would stand beside the pages of this one.
pub(crate) fn give_back() {
    let gone = pool(Pool::forget);
    drop(gone);
}

/// The pages of one array, which go to the pool when it is dropped.
#[derive(Debug)]
pub(crate) struct Pages(Option<MmapMut>);

impl Pages {
    /// So many bytes and what the last page holds beyond them, all zero; `None` where the system
    /// has no more.
    pub(crate) fn zeroed(bytes: usize) -> Option<Self> {
        Self::mapped(bytes, |again| again.fill(0))
    }

    /// The same of any content, for who writes every byte before it is read. A debug build shows
    /// who does not: the numbers are none.
    pub(crate) fn unwritten(bytes: usize) -> Option<Self> {
        let mut pages = Self::mapped(bytes, |_| ())?;
        if cfg!(debug_assertions) {
            pages.fill(0xff);
        }
        Some(pages)
    }

    fn mapped(bytes: usize, clear: impl FnOnce(&mut [u8])) -> Option<Self> {
        let bytes = bytes.next_multiple_of(PAGE_BYTES);
        // What had to go for it is unmapped before more is mapped.
        let FromPool { again, .. } = pool(|pool| pool.take(bytes));
        if let Some(mut pages) = again {
            clear(&mut pages);
            return Some(Self(Some(pages)));
        }
        let Ok(pages) = MmapMut::map_anon(bytes) else {
            pool(|pool| pool.in_use -= bytes);
            return None;
        };
        // Advice only: without huge pages it is slower and right.
        let _ = pages.advise(Advice::HugePage);
        Some(Self(Some(pages)))
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if let Some(pages) = self.0.take() {
            // What has to go is unmapped when the pool is free again.
            let gone = pool(|pool| pool.keep(pages));
            drop(gone);
        }
    }
}

/// Pages that are free.
struct Pool {
    /// Freed first, first.
    kept: Vec<MmapMut>,
    kept_bytes: usize,
    in_use: usize,
    /// The most that was in use at one time.
    most: usize,
}

/// What a pool has for an array.
struct FromPool {
    again: Option<MmapMut>,
    /// No longer kept.
    _gone: Vec<MmapMut>,
}

impl Pool {
    const fn new() -> Self {
        Self {
            kept: Vec::new(),
            kept_bytes: 0,
            in_use: 0,
            most: 0,
        }
    }

    /// Pages for so many bytes, counted as in use whether they are here or are to be mapped.
    fn take(&mut self, bytes: usize) -> FromPool {
        self.in_use += bytes;
        self.most = self.most.max(self.in_use);
        // What was freed last may still be in a cache.
        let found = self.kept.iter().rposition(|pages| pages.len() == bytes);
        let again = found.map(|at| self.kept.remove(at));
        self.kept_bytes -= again.as_ref().map_or(0, |pages| pages.len());
        FromPool {
            again,
            _gone: self.trim(),
        }
    }

    /// Keeps pages that were in use; what has to go for them.
    fn keep(&mut self, pages: MmapMut) -> Vec<MmapMut> {
        self.in_use -= pages.len();
        if pages.len() > KEPT_BYTES {
            return vec![pages];
        }
        self.kept_bytes += pages.len();
        self.kept.push(pages);
        self.trim()
    }

    /// Takes out all that is kept, and begins to count anew.
    fn forget(&mut self) -> Vec<MmapMut> {
        self.most = self.in_use;
        self.trim()
    }

    /// Takes out what is too much.
    fn trim(&mut self) -> Vec<MmapMut> {
        let most = KEPT_BYTES.min(self.most - self.in_use);
        let mut left = self.kept_bytes;
        let too_many = self.kept.iter().take_while(|pages| {
            let too_much = left > most;
            left -= if too_much { pages.len() } else { 0 };
            too_much
        });
        let count = too_many.count();
        self.kept_bytes = left;
        self.kept.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn fresh(pool: &mut Pool, bytes: usize) -> MmapMut {
        let taken = pool.take(bytes);
        taken
            .again
            .unwrap_or_else(|| MmapMut::map_anon(bytes).unwrap())
    }

    /// Where pages lie.
    fn at(pages: &MmapMut) -> *const u8 {
        pages.as_ptr()
    }

    #[test]
    fn pages_serve_the_next_array_of_exactly_their_size() {
        let mut pool = Pool::new();
        let (first, second) = (fresh(&mut pool, MIB), fresh(&mut pool, 2 * MIB));
        let (of_first, of_second) = (at(&first), at(&second));
        assert!(pool.keep(first).is_empty() && pool.keep(second).is_empty());
        assert_eq!((pool.kept_bytes, pool.in_use), (3 * MIB, 0));
        let again = pool.take(2 * MIB).again.unwrap();
        assert_eq!(at(&again), of_second);
        // One page more is another size; for it the first has to go: more would be there than ever
        // was in use.
        assert!(pool.take(MIB + PAGE_BYTES).again.is_none());
        assert_eq!((pool.kept_bytes, pool.in_use), (0, 3 * MIB + PAGE_BYTES));
        assert_ne!(of_first, of_second);
    }

    #[test]
    fn what_is_given_back_is_kept_no_more() {
        let mut pool = Pool::new();
        let (first, second) = (fresh(&mut pool, MIB), fresh(&mut pool, 2 * MIB));
        assert!(pool.keep(first).is_empty());
        assert_eq!(pool.forget().len(), 1);
        assert_eq!((pool.kept_bytes, pool.most), (0, 2 * MIB));
        // More than is in use now was not in use since.
        drop(second);
        assert!(pool.take(MIB).again.is_none());
    }

    /// In any order of arrays, of sizes that repeat: what is kept is bounded, and never makes more
    /// of what is in use than there was.
    #[test]
    fn what_is_kept_never_raises_the_peak() {
        let mut pool = Pool::new();
        let mut sequence = qera_core::pseudo_random::SplitMix64::new(1);
        let mut next = |below: u64| usize::try_from(sequence.next_bits() % below).unwrap();
        let (mut held, mut in_use, mut most, mut hits) = (Vec::new(), 0, 0, 0);
        for step in 0..4000 {
            // Up to 120 MiB in use at first, little of it in the end.
            let room = if step < 1000 { 120 * MIB } else { 20 * MIB };
            let size = [MIB, 3 * MIB, 10 * MIB, 70 * MIB][next(4)];
            if in_use + size <= room {
                let taken = pool.take(size);
                hits += usize::from(taken.again.is_some());
                held.push(
                    taken
                        .again
                        .unwrap_or_else(|| MmapMut::map_anon(size).unwrap()),
                );
                in_use += size;
                most = most.max(in_use);
            } else if !held.is_empty() {
                let pages = held.swap_remove(next(held.len() as u64));
                in_use -= pages.len();
                drop(pool.keep(pages));
            }
            let kept: usize = pool.kept.iter().map(|pages| pages.len()).sum();
            assert_eq!(
                (kept, in_use, most),
                (pool.kept_bytes, pool.in_use, pool.most)
            );
            assert!(kept <= KEPT_BYTES && kept + in_use <= most, "{step}");
        }
        assert!(hits > 1000, "{hits}");
    }

    /// On several threads: every array is zero, whoever wrote where it lies.
    #[test]
    fn arrays_are_zero_on_every_thread() {
        std::thread::scope(|scope| {
            for thread in 1..5_u8 {
                scope.spawn(move || {
                    for round in 0..40 {
                        let mut pages: Vec<Pages> = (1..4)
                            .map(|size| Pages::zeroed(size * MIB - round % 2).unwrap())
                            .collect();
                        for pages in &mut pages {
                            assert!(pages.len() % PAGE_BYTES == 0);
                            assert!(pages.iter().all(|byte| *byte == 0));
                            pages.fill(thread);
                        }
                    }
                });
            }
        });
    }
}
