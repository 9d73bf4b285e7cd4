//! The subspaces of all candidates for the shrinkage at once.
//!
//! G_a = (1 - a) G_0 + a G_1 is linear in a, so that one basis Q with its images under both ends
//! serves every candidate: Q^T G_a Q is a blend of two small matrices, and V_a the top eigenvectors
//! of that. Q is a block Krylov basis whose blocks are multiplied by a blend near one end and one
//! near the other in turn, so that it holds the top vectors of both and what lies between; for
//! small n it is the whole space. On the rows of a block, x E V_a = (x E Q) times a small rotation.
//!
//! How good that is: with f at 1 % of tr G, f on held-out rows came out within 0.6 % for a up to
//! 0.5, and up to 4 % too small beyond, beside intervals of 16 % (blends measured against the ends
//! themselves, 10 blocks of 16 against 6 of 32: half the error, less work). A given a has a basis
//! of its own, within 1e-5.

use faer::{Mat, MatRef};

use crate::host::dense::{Eigenpairs, eigen, product};
use crate::host::solve_error::SolveError;
use crate::host::subspace::basis::{Columns, orthonormalise, start};
use crate::host::subspace::cycle::first_block;
use crate::host::subspace::error_operand::ErrorOperand;
use crate::host::transpose::transposed;
use crate::judge::training::Training;

/// Up to this n the basis is the whole space.
const WHOLE_MAX: usize = 160;
/// Blocks of the basis: narrow ones, as in `subspace`.
pub(crate) const BLOCKS: usize = 10;
/// The blends that blocks are multiplied by in turn.
const BLENDS: [f64; 2] = [0.1, 0.7];

/// Most columns of the basis.
pub(crate) const fn columns_max(n: usize, k: usize) -> usize {
    let krylov = BLOCKS * first_block(k);
    if n <= WHOLE_MAX || krylov > n {
        n
    } else {
        krylov
    }
}

/// A basis and what the ends make of it.
pub(crate) struct Candidates {
    /// E Q scaled by the power of two: m x s.
    t: Columns,
    /// Q^T G Q under each end.
    ends: Vec<Mat<f64>>,
}

impl Candidates {
    /// For the ends of `training`: one pass over E and S for each block.
    pub(crate) fn new(training: &Training<'_>, error: &ErrorOperand<'_>, k: usize) -> Self {
        let (m, n) = (error.m(), error.n());
        let most = columns_max(n, k);
        let mut basis = Columns::with_room(n, most);
        let mut t = Columns::with_room(m, most);
        let mut images: Vec<Columns> = Vec::new();
        let mut block = if most == n {
            Mat::identity(n, n)
        } else {
            start(n, most / BLOCKS)
        };
        for index in 0..BLOCKS {
            let fresh = if most == n {
                block
            } else {
                orthonormalise(block, basis.as_ref(), most - basis.count())
            };
            if fresh.ncols() == 0 {
                break;
            }
            let fresh_t = error.times(transposed(fresh.as_ref()).as_ref());
            let of_ends = training.apply(&fresh_t);
            images.resize_with(of_ends.len(), || Columns::with_room(m, most));
            t.push(fresh_t.transpose());
            for (image, fresh) in images.iter_mut().zip(&of_ends) {
                image.push(fresh.transpose());
            }
            basis.push(fresh.as_ref());
            if basis.count() == most {
                break;
            }
            let next = error.transposed_times(blend_of(of_ends, index));
            block = transposed(next.as_ref());
        }
        let ends = images
            .iter()
            .map(|image| product(t.as_ref().transpose(), image.as_ref()))
            .collect();
        Self { t, ends }
    }

    /// E Q.
    pub(crate) fn outputs(&self) -> MatRef<'_, f64> {
        self.t.as_ref()
    }

    /// The rotation of Q to the top-k subspace of the blend of the ends with these shares.
    pub(crate) fn top(&self, shares: &[f64], k: usize) -> Result<Mat<f64>, SolveError> {
        let s = self.t.count();
        let blend = Mat::from_fn(s, s, |i, j| {
            let terms = self.ends.iter().zip(shares);
            terms.map(|(end, share)| share * end[(i, j)]).sum()
        });
        let Eigenpairs { vectors, .. } = eigen(&blend)?;
        Ok(vectors.subcols(0, k.min(s)).to_owned())
    }
}

/// What the next block is made of: the images under the only end, or a blend of those under both.
fn blend_of(images: Vec<Mat<f64>>, index: usize) -> Mat<f64> {
    let a = BLENDS[index % BLENDS.len()];
    let mut images = images.into_iter();
    match (images.next(), images.next()) {
        (Some(one), Some(other)) => one * faer::Scale(1.0 - a) + other * faer::Scale(a),
        (Some(one), None) => one,
        (None, _) => Mat::new(),
    }
}
