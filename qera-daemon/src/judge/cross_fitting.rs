//! What corrections are worth on rows that they were not solved from.
//!
//! A fold's correction is E V_f V_f^T, V_f being the top eigenvectors of G_f = E^T S_f E, S_f the
//! metric without the fold's rows. A search for each fold from nothing costs several times the
//! solve itself. But G_f is near G, so that every fold begins with the same basis Q
//! (`shared_basis`):
//!
//! 1. The top k Ritz vectors V of G_f in Q. They have seen the fold's rows, because Q has: of two
//!    real layers the error on these came out 1 to 4 % too small.
//! 2. What Q lacks of V_f is to first order a combination of (I - Q Q^T) G_f V, for each vector by
//!    the inverse of its gap. These columns, made orthonormal, are W: of the a that is given, or of
//!    two blends for all candidates.
//! 3. The top k Ritz vectors of G_f in [Q W] are V_f: one step of block Krylov (or of LOBPCG:
//!    Knyazev, SIAM J. Sci. Comput. 23 (2001) 517) from V. On the same layers, in four folds that
//!    are a quarter of all rows each, the error came out 0.01 to 0.1 % too small, and where all
//!    candidates share W 0.2 to 0.8 %, of one as of the other.
//!
//! G_f is never applied to Q: T = s E Q and R T are the same for every fold, and what the rows
//! left out take off is (X T)^T X T. Cost of the folds together, for p columns in Q, w in W, c rows
//! in the window: p (2 m n + 2 m^2 + 2 c m) flops, and w (4 m n + 2 m^2) for each fold + w 4 c m.

use faer::Mat;

use crate::host::dense::{Eigenpairs, product};
use crate::host::solve_error::SolveError;
use crate::host::subspace::basis::orthonormalise;
use crate::host::subspace::small_top::top_eigen;
use crate::host::transpose::transposed;
use crate::judge::ends::Ends;
use crate::judge::sampled_folds::{Part, Sample};
use crate::judge::scores::BlockErrors;
use crate::judge::shared_basis::{FoldedLayer, SharedBasis};
use crate::judge::training::{Images, Training, rotated};

/// A layer, the basis in which the search of each of its folds begins, and the candidates to score.
pub(crate) struct CrossFitting<'a> {
    pub(crate) layer: FoldedLayer<'a>,
    pub(crate) basis: SharedBasis,
    /// The candidates for the shrinkage a.
    pub(crate) candidates: &'a [f64],
    /// The shrinkages a for which each fold looks for what Q lacks.
    pub(crate) blends: &'a [f64],
}

/// The space [Q W] in which the corrections of a fold are found.
struct FoldSpace {
    /// s (E W)^T: w x m.
    t: Mat<f64>,
    /// [Q W]^T G_f [Q W] under each end.
    ends: Ends,
}

impl CrossFitting<'_> {
    /// Adds the errors of a fold's blocks, in their order. `wide` is memory in which rows are
    /// widened.
    ///
    /// # Errors
    /// [`SolveError`]: products that overflow.
    pub(crate) fn score(
        &self,
        part: &Part<'_>,
        wide: &mut Vec<f32>,
        errors: &mut BlockErrors,
    ) -> Result<(), SolveError> {
        let error = self.layer.error;
        let space = self.space(&part.training, wide)?;
        let samples = part.samples.iter();
        let without: Vec<f64> = samples.map(|sample| sample.without(error)).collect();
        let samples = part.samples.iter();
        let along: Vec<_> = samples.map(|sample| self.along(sample, &space)).collect();
        for (&a, with) in self.candidates.iter().zip(&mut errors.with) {
            let top = self.top(&space.ends, a)?.vectors;
            for ((along, sample), without) in along.iter().zip(&part.samples).zip(&without) {
                let captured = product(top.transpose(), along.as_ref());
                let captured = sample.mean_power(&captured) / error.scale_squared();
                with.push((without - captured).max(0.0));
            }
        }
        errors.without.extend(without);
        if errors.are_finite() {
            Ok(())
        } else {
            Err(SolveError::HeldOutOverflow)
        }
    }

    /// [Q W]^T (s x E)^T for the rows x of a sample: p + w x rows.
    fn along(&self, sample: &Sample, space: &FoldSpace) -> Mat<f64> {
        let layer = &self.layer;
        let of = |t: &Mat<f64>| sample.along(layer.compute, t, layer.in_f64);
        let first = of(&self.basis.t);
        if space.t.nrows() == 0 {
            return first;
        }
        let (p, more) = (first.nrows(), of(&space.t));
        let mut along = Mat::zeros(p + more.nrows(), first.ncols());
        along.as_mut().subrows_mut(0, p).copy_from(&first);
        let mut behind = along.as_mut().subrows_mut(p, more.nrows());
        behind.copy_from(&more);
        along
    }

    /// The top k eigenvectors under the shrinkage a and their values.
    fn top(&self, ends: &Ends, a: f64) -> Result<Eigenpairs, SolveError> {
        top_eigen(&ends.blend(a), self.layer.rank)
    }

    fn space(&self, training: &Training<'_>, wide: &mut Vec<f32>) -> Result<FoldSpace, SolveError> {
        let SharedBasis {
            columns,
            t,
            rt,
            along,
            between,
        } = &self.basis;
        let whole = training.images(t, rt, along, wide);
        let ends = training.ends(&whole, &whole, between);
        let room = columns.nrows() - columns.ncols();
        let t = Mat::new();
        if room == 0 || columns.ncols() == 0 {
            return Ok(FoldSpace { t, ends });
        }
        let block = self.lacking(training, &whole, &ends, wide)?;
        let room = room.min(block.ncols());
        let fresh = orthonormalise(block, columns.as_ref(), room);
        if fresh.ncols() == 0 {
            return Ok(FoldSpace { t, ends });
        }
        let t = self.layer.error.times(transposed(fresh.as_ref()).as_ref());
        let rt = self.layer.times_r(&t);
        let along = self.layer.along(fresh.as_ref());
        let added = training.images(&t, &rt, &along, wide);
        let beside = training.ends(&whole, &added, &whole.between(&added));
        let own = training.ends(&added, &added, &added.between(&added));
        let ends = ends.bordered(&beside, &own);
        Ok(FoldSpace { t, ends })
    }

    /// G_f V for the top Ritz vectors V of each of the blends in Q, side by side.
    fn lacking(
        &self,
        training: &Training<'_>,
        whole: &Images<'_>,
        ends: &Ends,
        wide: &mut Vec<f32>,
    ) -> Result<Mat<f64>, SolveError> {
        let n = self.basis.columns.nrows();
        let mut block = Mat::zeros(n, 0);
        for &a in self.blends {
            let top = self.top(ends, a)?.vectors;
            let image = training.times(a, whole, &top, wide);
            let mut image = self.layer.error.transposed_times(image);
            if let Some(sketch) = self.layer.sketch {
                let along = rotated(whole.along, &top);
                image += sketch.back(&along) * faer::Scale(training.sketch_share(a));
            }
            let image = transposed(image.as_ref());
            let first = block.ncols();
            block.resize_with(n, first + image.ncols(), |i, j| image[(i, j - first)]);
        }
        Ok(block)
    }
}
