//! The top eigenvectors of G = E^T S E.
//!
//! Small n: G is formed in f64 and decomposed. Otherwise restarted block Krylov: blocks b, G b, G^2 b, ...
//! span a basis, Rayleigh-Ritz in f64 takes the best vectors out of it, and they start the next
//! cycle. The spectra here are flat behind rank k, which is why subspace iteration and randomised SVD are
//! not enough (1e-4 to 1e-2 above the optimum at the same cost; Musco and Musco 2015 has the theory).
//! Products are f32, except those of the block with which a later cycle starts: the Ritz vectors of the cycle before,
//! which all but make up the answer. With their images in f64 the cycle is a step of iterative refinement: what
//! f32 leaves in the images of the other blocks is multiplied by their small share (1e-3 and less). In f32 alone the excess is
//! about (1e-7 lambda_1 / lambda_k)^2 (measured: 7e-7 at a spread of 4e4); so it is 1e-11, also at a spread of 1e6.
//!
//! When to stop: for a Ritz pair (theta, v) with residual r = G v - theta v, what theta lacks of its eigenvalue is at most
//! |r|^2 / gap, the gap being that to the rest of the spectrum (Parlett, The Symmetric Eigenvalue Problem, 11.7). The gap to
//! the first eigenvalue outside of the basis is taken to be that to the last vector kept beyond k, which is closer. The
//! images are there, so that the residuals cost one small product; they are looked at after each block from the third on.
//! What they are compared with, the trace that is not captured, is estimated from the random start: the mean of
//! q^T G q over its columns less their captured part, times n (Hutchinson's estimator of a flat rest; a few percent).

use faer::{Mat, MatRef};

use super::basis::{Columns, Remainder, eigen, orthonormalise, product, start};
use super::gap::lacking;
use super::operator::ErrorOperator;

/// Up to this n the eigenproblem is solved densely in f64.
pub(super) const DENSE_MAX: usize = 512;
/// Columns of G made at a time.
pub(super) const DENSE_PANEL: usize = 128;
/// Vectors kept beyond k, at least.
const EXTRA: usize = 8;
/// Blocks are whole vectors of the widest CPU: fewer columns would cost as much.
const LANES: usize = 16;
/// Blocks of the first cycle, and most of a later one.
const BLOCKS_FIRST: usize = 6;
const BLOCKS: usize = 5;
/// Blocks of the single cycle from a warm start: excess about 1e-6 after a 5 % change of R.
const BLOCKS_WARM: usize = 3;
/// Cycles at most: a bound, not a schedule; natural spectra stop in the second.
const CYCLES_MAX: usize = 12;
/// Stop when what the captured sum still lacks is below this share of what is not captured.
const TOLERANCE: f64 = 1e-9;

/// How exact the answer has to be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effort<'a> {
    /// The correction of a last generation: from a cold start, to the tolerance.
    Final,
    /// The correction at a solve point: one cycle from the vectors of the solve point before.
    Warm(&'a Mat<f64>),
}

/// Vectors of the first block of a cold start.
pub(super) const fn first_block(k: usize) -> usize {
    (k / 2 + EXTRA).next_multiple_of(LANES)
}

/// Vectors that go from one cycle to the next, and to the next solve point.
pub(super) const fn kept(k: usize) -> usize {
    (k + EXTRA).next_multiple_of(LANES)
}

/// Columns of the basis of a cold start.
pub(super) fn krylov_columns(n: usize, k: usize) -> usize {
    let columns = (BLOCKS_FIRST * first_block(k)).max(BLOCKS * kept(k));
    columns.min(n)
}

/// Orthonormal columns that span the top-k eigenspace of G, best first, at least min(k, n) of them.
#[derive(Debug)]
pub(super) struct Subspace {
    pub(super) vectors: Mat<f64>,
    /// Eigenvalues of the first k, in the operator's scaling.
    pub(super) values: Vec<f64>,
}

/// The top-k eigenspace of G.
///
/// # Errors
/// A sentence, when products overflow or the dense eigensolver does not converge.
pub(super) fn top_subspace(
    operator: &ErrorOperator<'_>,
    k: usize,
    effort: Effort<'_>,
) -> Result<Subspace, String> {
    if is_dense(operator.n(), k) {
        return dense(operator, k);
    }
    match effort {
        Effort::Final => cold(operator, k),
        Effort::Warm(vectors) => {
            let mut cycle = Cycle::new(operator, k, BLOCKS_WARM * vectors.ncols());
            cycle.grow(vectors.clone(), BLOCKS_WARM, None)?;
            Ok(cycle.ritz()?.into())
        }
    }
}

/// Whether G is formed: always for small n, and where a Krylov basis would be near n columns.
pub(super) const fn is_dense(n: usize, k: usize) -> bool {
    n <= DENSE_MAX || 4 * kept(k) > n
}

fn dense(operator: &ErrorOperator<'_>, k: usize) -> Result<Subspace, String> {
    let n = operator.n();
    let mut g = Mat::<f64>::zeros(n, n);
    for first in (0..n).step_by(DENSE_PANEL) {
        let width = DENSE_PANEL.min(n - first);
        let identity = Mat::from_fn(n, width, |i, j| f64::from(u8::from(i == first + j)));
        let columns = operator.apply_f64(identity.as_ref());
        g.as_mut().subcols_mut(first, width).copy_from(&columns);
    }
    let (vectors, mut values) = eigen(&g)?;
    values.truncate(k);
    Ok(Subspace {
        vectors: vectors.subcols(0, kept(k).min(n)).to_owned(),
        values,
    })
}

fn cold(operator: &ErrorOperator<'_>, k: usize) -> Result<Subspace, String> {
    let random = start(operator.n(), first_block(k));
    let width = random.ncols();
    let mut cycle = Cycle::new(operator, k, krylov_columns(operator.n(), k));
    cycle.grow(random, BLOCKS_FIRST, None)?;
    let mut found = cycle.ritz()?;
    let rest = cycle.rest(&found, width);
    for _ in 1..CYCLES_MAX {
        cycle.restart();
        cycle.grow(found.vectors, BLOCKS, Some(rest))?;
        let next = cycle.ritz()?;
        // Where rounding keeps the residuals large, the sum itself says that it no longer grows.
        let done = next.lacking.min((next.captured - found.captured).abs()) <= TOLERANCE * rest;
        found = next;
        if done {
            break;
        }
    }
    Ok(found.into())
}

/// One Krylov cycle.
struct Cycle<'a> {
    operator: &'a ErrorOperator<'a>,
    k: usize,
    /// Whether the first block is multiplied in f64.
    precise: bool,
    basis: Columns,
    images: Columns,
    /// Q^T G Q.
    small: Mat<f64>,
    /// Columns of the first block.
    first: usize,
}

/// The best Ritz vectors of a basis.
struct Ritz {
    vectors: Mat<f64>,
    /// Their coordinates in the basis.
    rotation: Mat<f64>,
    /// The top k values.
    values: Vec<f64>,
    captured: f64,
    /// What the captured sum lacks, about.
    lacking: f64,
}

impl From<Ritz> for Subspace {
    fn from(found: Ritz) -> Self {
        Self {
            vectors: found.vectors,
            values: found.values,
        }
    }
}

impl<'a> Cycle<'a> {
    /// With room for `columns`.
    fn new(operator: &'a ErrorOperator<'a>, k: usize, columns: usize) -> Self {
        let n = operator.n();
        let columns = columns.min(n);
        Self {
            operator,
            k,
            precise: false,
            basis: Columns::with_room(n, columns),
            images: Columns::with_room(n, columns),
            small: Mat::zeros(columns, columns),
            first: 0,
        }
    }

    const fn used(&self) -> usize {
        self.basis.count()
    }

    /// Begins anew, from Ritz vectors.
    const fn restart(&mut self) {
        self.basis.clear();
        self.images.clear();
        self.precise = true;
    }

    /// Adds blocks until there are `blocks`, the space is exhausted, or what the captured sum lacks is nothing beside `rest`.
    fn grow(&mut self, block: Mat<f64>, blocks: usize, rest: Option<f64>) -> Result<(), String> {
        let n = self.operator.n();
        let capacity = (blocks * block.ncols()).min(n / 2).max(block.ncols());
        let mut fresh = orthonormalise(block, MatRef::from_row_major_slice(&[], n, 0), capacity);
        for index in 0..blocks {
            let image = if index == 0 && self.precise {
                self.precise_image(&fresh)
            } else {
                self.operator.apply_f32(fresh.as_ref())
            };
            self.add(&fresh, &image);
            let (along, remainder) = Remainder::of(image, self.basis.as_ref());
            self.know(&along, fresh.as_ref());
            if index + 1 == blocks || self.used() == capacity {
                break;
            }
            if let Some(rest) = rest.filter(|_| index >= 2)
                && self.lacking(&remainder, fresh.ncols())? <= TOLERANCE * rest
            {
                break;
            }
            let basis = self.basis.as_ref();
            fresh = remainder.orthonormal(basis, capacity - self.used());
            if fresh.ncols() == 0 {
                break; // The basis is invariant.
            }
        }
        Ok(())
    }

    /// What the captured sum lacks, about, while the basis is a Krylov basis: only the last block's images lead out of it.
    fn lacking(&self, remainder: &Remainder, width: usize) -> Result<f64, String> {
        let (rotation, values) = self.decompose()?;
        let count = self.k.min(self.used());
        let last = rotation.as_ref().subrows(self.used() - width, width);
        let squares = remainder.squares(last.subcols(0, count));
        Ok(lacking(
            &values[..kept(self.k).min(self.used())],
            count,
            &squares,
        ))
    }

    fn decompose(&self) -> Result<(Mat<f64>, Vec<f64>), String> {
        let used = self
            .small
            .as_ref()
            .submatrix(0, 0, self.used(), self.used());
        eigen(&used.to_owned())
    }

    /// In f64 for the k vectors that matter.
    fn precise_image(&self, fresh: &Mat<f64>) -> Mat<f64> {
        let k = self.k.min(fresh.ncols());
        let mut image = Mat::zeros(fresh.nrows(), fresh.ncols());
        let top = self.operator.apply_f64(fresh.subcols(0, k));
        image.as_mut().subcols_mut(0, k).copy_from(&top);
        if k < fresh.ncols() {
            let others = fresh.subcols(k, fresh.ncols() - k);
            let others = self.operator.apply_f32(others);
            image
                .as_mut()
                .subcols_mut(k, others.ncols())
                .copy_from(&others);
        }
        image
    }

    fn add(&mut self, fresh: &Mat<f64>, image: &Mat<f64>) {
        if self.used() == 0 {
            self.first = fresh.ncols();
        }
        self.basis.push(fresh.as_ref());
        self.images.push(image.as_ref());
    }

    /// Q^T G Q for the block that came last, given Q^T times its images. With the first block by that block's own images,
    /// which are more precise.
    fn know(&mut self, along: &Mat<f64>, fresh: MatRef<'_, f64>) {
        let from = self.used() - fresh.ncols();
        let used = self.used();
        let mut small = self.small.as_mut();
        // The first k of the first block are the precise ones and have the last word.
        for j in (0..fresh.ncols()).rev() {
            for i in 0..used {
                small[(i, from + j)] = along[(i, j)];
                small[(from + j, i)] = along[(i, j)];
            }
        }
        if from == 0 {
            return;
        }
        let precise = product(
            self.images.as_ref().subcols(0, self.first).transpose(),
            fresh,
        );
        for j in 0..fresh.ncols() {
            for i in 0..self.first {
                small[(i, from + j)] = precise[(i, j)];
                small[(from + j, i)] = precise[(i, j)];
            }
        }
    }

    /// The trace that is not captured, about, from the first `width` vectors of a basis that began at random; near an exact
    /// fit only rounding moves.
    fn rest(&self, found: &Ritz, width: usize) -> f64 {
        let width = width.min(self.used());
        let of_vector = |j: usize| {
            let captured = found.values.iter().enumerate();
            let captured = captured.map(|(i, value)| value * found.rotation[(j, i)].powi(2));
            self.small[(j, j)] - captured.sum::<f64>()
        };
        let mean = (0..width).map(of_vector).sum::<f64>() / width.max(1) as f64;
        (mean * self.operator.n() as f64).max(1e-6 * found.captured)
    }

    /// The best vectors of the basis, and how good they are, by their own residuals.
    fn ritz(&self) -> Result<Ritz, String> {
        let (rotation, mut values) = self.decompose()?;
        let rotation = rotation.as_ref().subcols(0, kept(self.k).min(self.used()));
        let vectors = product(self.basis.as_ref(), rotation);
        let count = self.k.min(self.used());
        let images = product(self.images.as_ref(), rotation.subcols(0, count));
        let square = |j: usize| {
            let pairs = images.col(j).iter().zip(vectors.col(j).iter());
            let residual = pairs.map(|(image, v)| (image - values[j] * v).powi(2));
            residual.sum::<f64>()
        };
        let squares: Vec<f64> = (0..count).map(square).collect();
        let lacking = lacking(&values[..kept(self.k).min(self.used())], count, &squares);
        values.truncate(count);
        Ok(Ritz {
            rotation: rotation.to_owned(),
            captured: values.iter().sum(),
            vectors,
            values,
            lacking,
        })
    }
}
