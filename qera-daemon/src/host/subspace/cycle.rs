//! One cycle of block Krylov: a basis that grows until Rayleigh-Ritz on it is good enough.

use crate::host::dense::{Eigenpairs, product};
use crate::host::solve_error::SolveError;
use crate::host::subspace::basis::{Columns, Projection, Remainder, orthonormalise};
use crate::host::subspace::operator::ErrorOperator;
use crate::host::subspace::ritz::lacking;
use crate::host::subspace::small_top::top_eigen;

use faer::{Mat, MatRef};

/// Vectors kept beyond k, at least.
const EXTRA: usize = 8;
/// Blocks are whole vectors of the widest CPU, because fewer columns would cost as much.
const LANES: usize = 16;
/// The most blocks of a later cycle; natural spectra take 2.
pub(crate) const BLOCKS: usize = 4;
/// A later cycle ends when the captured sum lacks less than this share of what is not captured.
pub(crate) const TOLERANCE: f64 = 1e-9;
/// The same for the first cycle: on natural spectra two refining blocks left a thirtieth to a
/// hundredth.
const TOLERANCE_FIRST: f64 = 30.0 * TOLERANCE;

/// Eigenvalues closer than this, relatively, count as one that repeats.
const REPEATED: f64 = 1e-4;

/// The number of vectors in a block of a cold start.
pub(crate) const fn first_block(k: usize) -> usize {
    k.div_ceil(2).next_multiple_of(LANES)
}

/// The number of vectors that go from one cycle to the next, and to the next solve point.
pub(crate) const fn kept(k: usize) -> usize {
    (k + EXTRA).next_multiple_of(LANES)
}

/// The number of vectors in which the eigenspaces of matrices near G are looked for: the kept ones
/// and the next ones of the basis.
pub(crate) const fn nearby(k: usize) -> usize {
    let (twice, more) = ((2 * k).next_multiple_of(LANES), kept(k) + LANES);
    if twice > more { twice } else { more }
}

/// Orthonormal columns that span the top-k eigenspace of G, best first, at least k of them, or as
/// many as G has.
#[derive(Debug)]
pub(crate) struct Subspace {
    pub(crate) vectors: Mat<f64>,
    /// The Ritz vectors that follow in the basis that they were found in, about, up to
    /// [`nearby`] in all.
    pub(crate) beyond: Mat<f64>,
    /// Eigenvalues of the first k, in the operator's scaling.
    pub(crate) values: Vec<f64>,
}

/// How far a basis may grow.
#[derive(Clone, Copy)]
pub(crate) struct Growth {
    /// The most blocks.
    pub(crate) blocks: usize,
    /// The number of columns from which the basis is checked, and ends when it is good enough.
    pub(crate) looked_at_from: usize,
}

impl Growth {
    /// The growth of a later cycle, which begins with the kept vectors.
    pub(crate) const fn refining(k: usize) -> Self {
        Self {
            blocks: BLOCKS,
            looked_at_from: 2 * kept(k),
        }
    }
}

/// A Krylov basis with its images under G.
pub(crate) struct Cycle<'a> {
    operator: &'a ErrorOperator<'a>,
    k: usize,
    pub(crate) basis: Columns,
    /// Q^T G Q.
    small: Mat<f64>,
    /// The number of columns of the first block.
    first: usize,
    /// The trace that is not captured, once the first cycle has found it. From then on the first
    /// blocks are multiplied in f64.
    rest: Option<f64>,
    /// The images of such a precise block.
    images: Mat<f64>,
}

/// Approximate eigenpairs of G, from Q^T G Q.
pub(crate) struct Pairs {
    /// The vectors' coordinates in the basis.
    rotation: Mat<f64>,
    /// The Ritz values: the first k, followed by those kept beyond them.
    values: Vec<f64>,
    /// The sum of the k largest.
    pub(crate) captured: f64,
    /// An estimate of what this sum lacks.
    pub(crate) lacking: f64,
}

impl Pairs {
    /// Whether one value occurs `block` times. The space of a random block holds no more of its
    /// vectors, and does not show whether there are more.
    pub(crate) fn may_repeat(&self, block: usize) -> bool {
        let runs = self.values.windows(block.max(1));
        let mut ends = runs.map(|run| (run[0], run[run.len() - 1]));
        ends.any(|(first, last)| last > 0.0 && last >= (1.0 - REPEATED) * first)
    }
}

/// The best vectors of a basis.
pub(crate) struct Ritz {
    pub(crate) vectors: Mat<f64>,
    pub(crate) pairs: Pairs,
}

impl Ritz {
    pub(crate) fn subspace(self, k: usize, beyond: Mat<f64>) -> Subspace {
        let mut values = self.pairs.values;
        values.truncate(k);
        Subspace {
            vectors: self.vectors,
            beyond,
            values,
        }
    }
}

impl<'a> Cycle<'a> {
    /// A cycle with room for `columns` columns.
    pub(crate) fn new(operator: &'a ErrorOperator<'a>, k: usize, columns: usize) -> Self {
        let n = operator.n();
        let columns = columns.min(n);
        Self {
            operator,
            k,
            basis: Columns::with_room(n, columns),
            small: Mat::zeros(columns, columns),
            first: 0,
            rest: None,
            images: Mat::zeros(n, 0),
        }
    }

    const fn used(&self) -> usize {
        self.basis.count()
    }

    pub(crate) const fn begin_anew(&mut self, rest: f64) {
        self.basis.clear();
        self.rest = Some(rest);
    }

    /// Grows a basis and returns its best vectors. It ends when the basis has `blocks` blocks, when
    /// the space is exhausted, or when it is good enough, which is checked from `looked_at_from`
    /// columns on.
    pub(crate) fn run(&mut self, block: Mat<f64>, limits: Growth) -> Result<Ritz, SolveError> {
        let n = self.operator.n();
        let Growth {
            blocks,
            looked_at_from,
        } = limits;
        let capacity = (blocks * block.ncols()).min(self.small.ncols());
        let mut fresh = orthonormalise(block, MatRef::from_row_major_slice(&[], n, 0), capacity);
        self.first = fresh.ncols();
        let mut done = 0;
        loop {
            let remainder = self.add(fresh.as_ref());
            done += 1;
            // A part of a block would leave images that lead out of the basis and are not looked
            // at.
            let full = done == blocks || capacity - self.used() < fresh.ncols();
            if full || self.used() >= looked_at_from {
                let pairs = self.pairs(&remainder, fresh.ncols())?;
                if full || self.suffices(&pairs) {
                    return Ok(self.lift(pairs));
                }
            }
            let next = remainder.orthonormal(self.basis.as_ref(), capacity - self.used());
            if next.ncols() == 0 {
                // Nothing leads out of the basis: it is invariant.
                let pairs = self.pairs(&remainder, fresh.ncols())?;
                return Ok(self.lift(pairs));
            }
            fresh = next;
        }
    }

    fn suffices(&self, pairs: &Pairs) -> bool {
        let (share, rest) = match self.rest {
            Some(rest) => (TOLERANCE, rest),
            None => (TOLERANCE_FIRST, self.not_captured(pairs)),
        };
        pairs.lacking <= share * rest
    }

    /// Adds a block; returns what the basis leaves of its images.
    fn add(&mut self, fresh: MatRef<'_, f64>) -> Remainder {
        let leading = self.rest.is_some() && self.used() == 0;
        let image = if leading {
            self.images = self.precise_image(fresh);
            self.images.clone()
        } else {
            self.operator.apply_f32(fresh)
        };
        self.basis.push(fresh);
        let Projection { along, remainder } = Projection::of(image, self.basis.as_ref());
        self.know(&along, fresh);
        remainder
    }

    /// The images of the k vectors that matter, in f64.
    fn precise_image(&self, fresh: MatRef<'_, f64>) -> Mat<f64> {
        let k = self.k.min(fresh.ncols());
        let mut image = Mat::zeros(fresh.nrows(), fresh.ncols());
        let top = self.operator.apply_f64(fresh.subcols(0, k));
        image.as_mut().subcols_mut(0, k).copy_from(&top);
        if k < fresh.ncols() {
            let others = fresh.subcols(k, fresh.ncols() - k);
            let others = self.operator.apply_f32(others);
            let mut to = image.as_mut().subcols_mut(k, others.ncols());
            to.copy_from(&others);
        }
        image
    }

    /// Q^T G Q for the block that came last, given Q^T times its images. With a precise first block
    /// by that block's images.
    fn know(&mut self, along: &Mat<f64>, fresh: MatRef<'_, f64>) {
        let from = self.used() - fresh.ncols();
        // The first k of a first block are the precise ones and have the last word.
        self.set(from, along, fresh.ncols());
        if from > 0 && self.rest.is_some() {
            let precise = product(self.images.transpose(), fresh);
            self.set(from, &precise, fresh.ncols());
        }
    }

    /// Q^T G Q from column `from` on, `count` columns, and their mirror image.
    fn set(&mut self, from: usize, columns: &Mat<f64>, count: usize) {
        for j in (0..count).rev() {
            for i in 0..columns.nrows() {
                self.small[(i, from + j)] = columns[(i, j)];
                self.small[(from + j, i)] = columns[(i, j)];
            }
        }
    }

    /// An estimate of the trace that is not captured, from the first block of a basis with a random
    /// start. Near an exact fit only rounding changes it.
    pub(crate) fn not_captured(&self, found: &Pairs) -> f64 {
        let of_vector = |j: usize| {
            let captured = found.values.iter().take(self.k).enumerate();
            let captured = captured.map(|(i, value)| value * found.rotation[(j, i)].powi(2));
            self.small[(j, j)] - captured.sum::<f64>()
        };
        let mean = (0..self.first).map(of_vector).sum::<f64>() / self.first.max(1) as f64;
        (mean * self.operator.n() as f64).max(1e-6 * found.captured)
    }

    /// Rayleigh-Ritz, and how good it is: only the last block's images, `width` of them, lead out
    /// of the basis.
    fn pairs(&self, remainder: &Remainder, width: usize) -> Result<Pairs, SolveError> {
        let used = self.used();
        let small = self.small.as_ref().submatrix(0, 0, used, used);
        let Eigenpairs {
            vectors: rotation,
            mut values,
        } = top_eigen(&small.to_owned(), nearby(self.k).min(used))?;
        let (kept, count) = (kept(self.k).min(used), self.k.min(used));
        let last = rotation.as_ref().submatrix(used - width, 0, width, count);
        let lacking = lacking(&values[..kept], count, &remainder.squares(last));
        values.truncate(kept);
        Ok(Pairs {
            rotation,
            captured: values[..count].iter().sum(),
            values,
            lacking,
        })
    }

    fn lift(&self, pairs: Pairs) -> Ritz {
        let kept = pairs.rotation.subcols(0, pairs.values.len());
        Ritz {
            vectors: product(self.basis.as_ref(), kept),
            pairs,
        }
    }

    /// The Ritz vectors that follow those kept, while the basis is that of these pairs.
    pub(crate) fn beyond(&self, pairs: &Pairs) -> Mat<f64> {
        let (from, all) = (pairs.values.len(), pairs.rotation.ncols());
        let others = pairs.rotation.subcols(from, all - from);
        product(self.basis.as_ref(), others)
    }
}
