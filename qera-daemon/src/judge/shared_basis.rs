//! Q: the basis in which the searches for the corrections of all folds and all candidates begin.
//!
//! G_f of a fold is near G, and its top eigenvectors near those of G: `cross_fitting` has the rest.
//! Where a is given, Q is what the solve found: its vectors, and the Ritz vectors that follow.
//!
//! Where a is to be chosen, G_a = (1 - a) G_0 + a G_1 is linear in a, so that one basis with its
//! images under both ends serves every candidate: Q^T G_a Q is a blend of two small matrices. It is
//! a block Krylov basis whose blocks are multiplied by a blend near one end and by the other end in
//! turn, of which only what the top eigenvectors near both ends are made of is kept; for small n it
//! is the whole space.

use faer::{Mat, MatRef};

use crate::host::compute::Compute;
use crate::host::dense::{Eigenpairs, product};
use crate::host::second_moment::metric::{blend, scaled};
use crate::host::second_moment::prepared::PreparedR;
use crate::host::solve_error::SolveError;
use crate::host::subspace::basis::{Columns, orthonormalise, start};
use crate::host::subspace::cycle::first_block;
use crate::host::subspace::error_operand::ErrorOperand;
use crate::host::subspace::small_top::top_eigen;
use crate::host::transpose::transposed;
use crate::judge::scaled_sketch::ScaledSketch;
use crate::judge::training::Images;

/// Up to this out_features n the shared basis is the whole space.
const WHOLE_MAX: usize = 160;
/// Blocks of the candidates' Krylov basis. They are narrow, as in `subspace`.
pub(crate) const BLOCKS: usize = 10;
/// The two shrinkages that the basis is made for. Its blocks are multiplied by R blended with
/// diag(R) at each of them in turn; folds are searched with the top vectors of both.
pub(crate) const BLENDS: [f64; 2] = [0.1, 1.0];

/// The most columns that the Krylov basis of the candidates has.
pub(crate) const fn columns_max(n: usize, k: usize) -> usize {
    let krylov = BLOCKS * first_block(k);
    if n <= WHOLE_MAX || krylov > n {
        n
    } else {
        krylov
    }
}

/// Columns of the Krylov basis that are kept.
pub(crate) const fn shared_columns(n: usize, k: usize) -> usize {
    let (all, kept) = (columns_max(n, k), BLENDS.len() * kept_of_blend(k));
    if all == n || all < kept { all } else { kept }
}

/// Columns that are kept for each of the two blends, at least.
const KEPT_MIN: usize = 32;

/// Columns that are kept for each of the two blends.
const fn kept_of_blend(k: usize) -> usize {
    let kept = (3 * k).div_ceil(2).next_multiple_of(8);
    if kept > KEPT_MIN { kept } else { KEPT_MIN }
}

/// A layer whose correction is solved again for each fold, without the fold's rows.
#[derive(Clone, Copy)]
pub(crate) struct FoldedLayer<'a> {
    pub(crate) compute: Compute<'a>,
    pub(crate) error: &'a ErrorOperand<'a>,
    /// R as it is multiplied by; `None` where S is a diagonal, and where R is not gathered.
    pub(crate) r: Option<&'a PreparedR<'a>>,
    /// What stands for R where it is not gathered.
    pub(crate) sketch: Option<&'a ScaledSketch>,
    /// Whether products in f32 are too inexact, so that f64 is used.
    pub(crate) in_f64: bool,
    pub(crate) rank: usize,
}

impl FoldedLayer<'_> {
    /// T^T R / scale for T^T (b x m); nothing where S is a diagonal.
    pub(crate) fn times_r(&self, t: &Mat<f64>) -> Mat<f64> {
        self.r.map_or_else(Mat::new, |r| r.times(t.as_ref()))
    }

    /// (S V)^T for V (n x b); nothing where no sketch stands for R.
    pub(crate) fn along(&self, v: MatRef<'_, f64>) -> Mat<f64> {
        self.sketch.map_or_else(Mat::new, |sketch| sketch.along(v))
    }
}

/// Q, and its products with E and R.
pub(crate) struct SharedBasis {
    /// Q: n x p, orthonormal.
    pub(crate) columns: Mat<f64>,
    /// T^T = s (E Q)^T: p x m.
    pub(crate) t: Mat<f64>,
    /// T^T R / scale: p x m; without rows where S is a diagonal, and where R is not gathered.
    pub(crate) rt: Mat<f64>,
    /// (S Q)^T: p x kept; without rows where no sketch stands for R.
    pub(crate) along: Mat<f64>,
    /// T^T R T / scale, or what the sketch has for it: p x p; empty where S is a diagonal.
    pub(crate) between: Mat<f64>,
}

impl SharedBasis {
    /// Makes Q of the vectors that the solve of all rows found, best first, and of those that
    /// follow them.
    pub(crate) fn of_solve(layer: &FoldedLayer<'_>, found: [&Mat<f64>; 2]) -> Self {
        let [vectors, beyond] = found;
        let room = layer.error.n() - vectors.ncols();
        let more = orthonormalise(beyond.clone(), vectors.as_ref(), room);
        let columns = joined(vectors, &more);
        let t = layer.error.times(transposed(columns.as_ref()).as_ref());
        let rt = layer.times_r(&t);
        let along = layer.along(columns.as_ref());
        Self::new(columns, t, rt, along)
    }

    fn new(columns: Mat<f64>, t: Mat<f64>, rt: Mat<f64>, along: Mat<f64>) -> Self {
        let images = Images::of_all(&t, &rt, &along);
        let between = images.between(&images);
        Self {
            columns,
            t,
            rt,
            along,
            between,
        }
    }

    /// Makes Q for all candidates between R and its diagonal.
    ///
    /// # Errors
    /// [`SolveError`]: products that overflow.
    pub(crate) fn of_candidates(layer: &FoldedLayer<'_>) -> Result<Self, SolveError> {
        let krylov = Krylov::of(layer);
        let Krylov {
            basis,
            t,
            rt,
            along,
            ..
        } = &krylov;
        let (whole, count) = (basis.count() == layer.error.n(), kept_of_blend(layer.rank));
        let is_diagonal = layer.r.is_none() && layer.sketch.is_none();
        if whole || basis.count() <= BLENDS.len() * count || is_diagonal {
            let transposed = |of: &Columns| of.as_ref().transpose().to_owned();
            return Ok(Self::new(
                basis.as_ref().to_owned(),
                transposed(t),
                transposed(rt),
                transposed(along),
            ));
        }
        let rotation = krylov.best(count)?;
        let rotated = |of: &Columns| match of.as_ref().nrows() {
            0 => Mat::new(),
            _ => product(rotation.transpose(), of.as_ref().transpose()),
        };
        Ok(Self::new(
            product(basis.as_ref(), rotation.as_ref()),
            rotated(t),
            rotated(rt),
            rotated(along),
        ))
    }
}

/// A block Krylov basis of blends of two metrics, by columns.
struct Krylov<'a> {
    /// n x s, orthonormal.
    basis: Columns,
    /// s E times the basis: m x s.
    t: Columns,
    /// R T / scale; of no rows where R is not gathered.
    rt: Columns,
    /// S Q of the sketch that stands for it; of no rows where none does.
    along: Columns,
    /// diag(R) / scale.
    diagonal: &'a [f64],
}

impl<'a> Krylov<'a> {
    fn of(layer: &FoldedLayer<'a>) -> Self {
        let (m, n) = (layer.error.m(), layer.error.n());
        let most = columns_max(n, layer.rank);
        let mut krylov = Self {
            basis: Columns::with_room(n, most),
            t: Columns::with_room(m, most),
            rt: Columns::with_room(if layer.r.is_some() { m } else { 0 }, most),
            along: Columns::with_room(layer.sketch.map_or(0, ScaledSketch::kept), most),
            diagonal: match (layer.r, layer.sketch) {
                (Some(r), _) => &r.diagonal,
                (None, Some(sketch)) => &sketch.diagonal,
                (None, None) => &[],
            },
        };
        let mut block = if most == n {
            Mat::identity(n, n)
        } else {
            start(n, most / BLOCKS)
        };
        for index in 0..BLOCKS {
            let basis = &mut krylov.basis;
            let fresh = if most == n {
                block
            } else {
                orthonormalise(block, basis.as_ref(), most - basis.count())
            };
            if fresh.ncols() == 0 {
                break;
            }
            basis.push(fresh.as_ref());
            let full = basis.count() == most;
            let t = layer.error.times(transposed(fresh.as_ref()).as_ref());
            let rt = layer.times_r(&t);
            let along = layer.along(fresh.as_ref());
            krylov.t.push(t.transpose());
            krylov.rt.push(rt.transpose());
            krylov.along.push(along.transpose());
            if full {
                break;
            }
            let a = BLENDS[index % BLENDS.len()];
            let next = if rt.nrows() > 0 {
                blend(rt, a, krylov.diagonal, &t)
            } else if layer.sketch.is_some() {
                scaled(t, krylov.diagonal) * faer::Scale(a)
            } else {
                t
            };
            let mut image = layer.error.transposed_times(next);
            if let Some(sketch) = layer.sketch {
                image += sketch.back(&along) * faer::Scale(1.0 - a);
            }
            block = transposed(image.as_ref());
        }
        krylov
    }

    /// The rotation of the basis to the span of each blend's best `count` vectors.
    fn best(&self, count: usize) -> Result<Mat<f64>, SolveError> {
        let t = self.t.as_ref();
        let full = if self.along.as_ref().nrows() > 0 {
            product(self.along.as_ref().transpose(), self.along.as_ref())
        } else {
            product(t.transpose(), self.rt.as_ref())
        };
        let on_diagonal = scaled(t.transpose().to_owned(), self.diagonal);
        let diagonal = product(on_diagonal.as_ref(), t);
        let s = t.ncols();
        let mut best = Mat::zeros(s, 0);
        for a in BLENDS {
            let g = Mat::from_fn(s, s, |i, j| (1.0 - a) * full[(i, j)] + a * diagonal[(i, j)]);
            let Eigenpairs { vectors, .. } = top_eigen(&g, count)?;
            let fresh = orthonormalise(vectors, best.as_ref(), s - best.ncols());
            best = joined(&best, &fresh);
        }
        Ok(best)
    }
}

/// Columns side by side.
fn joined(left: &Mat<f64>, right: &Mat<f64>) -> Mat<f64> {
    let (n, from) = (left.nrows(), left.ncols());
    let mut both = Mat::zeros(n, from + right.ncols());
    both.as_mut().subcols_mut(0, from).copy_from(left);
    let mut behind = both.as_mut().subcols_mut(from, right.ncols());
    behind.copy_from(right);
    both
}
