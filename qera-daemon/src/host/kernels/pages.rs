//! A pool of mapped memory pages, which are used again.
//!
//! A solve maps some ten arrays of 1 to 10 MiB and is done with them in milliseconds. For layers of
//! 576 x 1536 a third of the time went to the system, which zeroes a page when it is first touched.
//! So free pages are kept for the next array that takes exactly as many.
//!
//! The pool never raises the peak: what it keeps and what is in use are together at most what was
//! in use at one time before, so that no plan has to count it. It keeps at most [`KEPT_BYTES`], and
//! gives back first what was freed first. There is one pool for the process, because arrays are
//! made in places that know nothing else: where a file is read, a weight decoded, a layer solved.

use core::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use memmap2::{Advice, MmapMut};

/// The most that is kept: all that a solve of 1536 x 576 has at one time.
const KEPT_BYTES: usize = 64 << 20;
/// The unit of sizes.
const PAGE_BYTES: usize = 4 << 10;

static POOL: Mutex<Pool> = Mutex::new(Pool::new());

fn pool<T>(work: impl FnOnce(&mut Pool) -> T) -> T {
    work(&mut POOL.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Gives back what the pool keeps. Whoever begins work of another kind calls this: a plan takes the
/// larger of two stages, and without this the heap of the next stage would stand beside the pages
/// of the last one.
pub(crate) fn give_back() {
    let gone = pool(Pool::forget);
    drop(gone);
}

/// The pages of one array. They go to the pool when this is dropped.
#[derive(Debug)]
pub(crate) struct Pages(Option<MmapMut>);

impl Pages {
    /// Zeroed pages for this many bytes; `None` where the system has no more.
    pub(crate) fn zeroed(bytes: usize) -> Option<Self> {
        Self::mapped(bytes, |again| again.fill(0))
    }

    /// Pages of any content, for callers that write every byte before it is read. In a debug build
    /// they hold NaN, so that a byte that was not written is noticed.
    pub(crate) fn unwritten(bytes: usize) -> Option<Self> {
        let mut pages = Self::mapped(bytes, |_| ())?;
        if cfg!(debug_assertions) {
            pages.fill(0xff);
        }
        Some(pages)
    }

    fn mapped(bytes: usize, clear: impl FnOnce(&mut [u8])) -> Option<Self> {
        let bytes = bytes.next_multiple_of(PAGE_BYTES);
        // Pages that have to go for these are unmapped before more is mapped.
        let FromPool { again, .. } = pool(|pool| pool.take(bytes));
        if let Some(mut pages) = again {
            clear(&mut pages);
            return Some(Self(Some(pages)));
        }
        let Ok(pages) = MmapMut::map_anon(bytes) else {
            pool(|pool| pool.in_use -= bytes);
            return None;
        };
        // This is advice only: without huge pages it is slower, and right.
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
            // Pages that have to go are unmapped after the pool is unlocked.
            let gone = pool(|pool| pool.keep(pages));
            drop(gone);
        }
    }
}

/// Free pages, and how much is in use.
struct Pool {
    /// Free pages, the first freed first.
    kept: Vec<MmapMut>,
    kept_bytes: usize,
    in_use: usize,
    /// The most that was in use at one time.
    most: usize,
}

/// The pool's answer to a request for pages.
struct FromPool {
    again: Option<MmapMut>,
    /// Pages that the pool gave up for this.
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

    /// Takes pages for this many bytes, and counts them as in use, whether the pool has them or
    /// they are still to be mapped.
    fn take(&mut self, bytes: usize) -> FromPool {
        self.in_use += bytes;
        self.most = self.most.max(self.in_use);
        // Pages that were freed last may still be in a cache.
        let found = self.kept.iter().rposition(|pages| pages.len() == bytes);
        let again = found.map(|at| self.kept.remove(at));
        self.kept_bytes -= again.as_ref().map_or(0, |pages| pages.len());
        FromPool {
            again,
            _gone: self.trim(),
        }
    }

    /// Keeps pages that were in use; returns those that have to go for them.
    fn keep(&mut self, pages: MmapMut) -> Vec<MmapMut> {
        self.in_use -= pages.len();
        if pages.len() > KEPT_BYTES {
            return vec![pages];
        }
        self.kept_bytes += pages.len();
        self.kept.push(pages);
        self.trim()
    }

    /// Takes out everything that is kept, and begins to count anew.
    fn forget(&mut self) -> Vec<MmapMut> {
        self.most = self.in_use;
        self.trim()
    }

    /// Takes out what is more than may be kept.
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

    /// The address at which the pages lie.
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
        // An array of one page more has another size, and the first pages have to go for it:
        // otherwise more would exist than was ever in use.
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
        // The most in use since is what is in use now.
        drop(second);
        assert!(pool.take(MIB).again.is_none());
    }

    /// With arrays in any order and of repeating sizes: what is kept is bounded, and together with
    /// what is in use never more than was in use before.
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
