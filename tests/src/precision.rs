//! The one table of tolerances.
//!
//! Every bound on a computed matrix is `units x n x eps x norm`: `n` the larger dimension, `norm`
//! that of the data it is compared with. A tolerance that is loosened here is loosened in sight of
//! all the others. The units are about four times the largest value met over the generators of the
//! tests, except where a requirement fixes the number.

/// `units * n * eps * norm`.
#[must_use]
pub fn allowed(units: f64, n: usize, norm: f64) -> f64 {
    units * n as f64 * f64::EPSILON * norm
}

/// `||Q L Q^T - A||_F`, norm `||A||_F`.
pub const EIGEN_REBUILD: f64 = 2.0;
/// `||Q^T Q - I||_F`, norm 1.
pub const EIGEN_ORTHOGONALITY: f64 = 4.0;
/// Largest `|l_i - l_i'|` against the oracle, norm `||A||_F`.
pub const EIGEN_VALUES: f64 = 4.0;
/// `||U S V^T - A||_F`, norm `||A||_F`.
pub const SVD_REBUILD: f64 = 1.0;
/// `||U^T U - I||_F` and `||V^T V - I||_F`, norm 1.
pub const SVD_ORTHOGONALITY: f64 = 6.0;
/// Largest `|s_i - s_i'|` against the oracle, norm `||A||_F`.
pub const SVD_VALUES: f64 = 2.0;
/// Relative error of each singular value of a well-conditioned matrix with graded columns, norm the
/// value itself.
pub const SVD_GRADED: f64 = 2.0;
/// `||root^2 - A||_F`, norm `||A||_F cond(A)^(1/4)`.
pub const ROOT_SQUARED: f64 = 2.0;
/// `||root inverse_root - I||_F`, norm `sqrt(cond A)`.
pub const ROOT_INVERSE: f64 = 16.0;
/// `||V^T V - I||_F` of the Ritz vectors, norm 1.
pub const KRYLOV_ORTHOGONALITY: f64 = 4.0;

/// `||L L^T - A||_F`, norm `||A||_F`.
pub const CHOLESKY_REBUILD: f64 = 1.0;

/// Captured sum of eigenvalues against the oracle, beside the relative term below; norm the trace.
pub const KRYLOV_ROUNDING: f64 = 0.5;
/// Captured sum of eigenvalues against the oracle, relative to what is left of the trace: the
/// requirement behind "f within 1e-6 of the optimum", with room for the daemon's own routine.
pub const KRYLOV_CAPTURED: f64 = 1e-9;
/// The two exact routes against each other at cond(R) = 1e6, relative, in f and in C.
pub const ROUTES_AGREE: f64 = 1e-10;
/// The golden vectors of the published program, which are printed to ten digits.
pub const GOLDEN: f64 = 1e-8;
/// f of the daemon's routine against the core's, relative.
pub const HOST_AND_CORE: f64 = 1e-9;
/// `sqrt(f)` of every method on real layers against the published program, relative.
pub const GOLDEN_OBJECTIVE: f64 = 1e-5;
/// `sqrt(f)` of QERA-exact on real layers above the optimum in double precision, relative.
pub const GOLDEN_OPTIMUM: f64 = 1e-6;
/// f of a solve from a cold start above the optimum, relative: the requirement.
pub const SOLVE_COLD: f64 = 1e-6;
/// f of a correction whose factors are written in f32 above the optimum, relative, where constant
/// channels are up to 1e4 times the others: the requirement.
pub const SOLVE_WRITTEN: f64 = 1e-5;
/// f after one cycle from the vectors of an R that was 5 % different above the optimum, relative:
/// the requirement.
pub const SOLVE_WARM: f64 = 1e-5;
/// Mean held-out error of a candidate, found in the space of all candidates, against a dense solve
/// of each fold, relative.
pub const HELD_OUT: f64 = 1e-3;
/// The same where the shrinkage is chosen: what a fold adds to the basis is shared by all
/// candidates, and the mean comes out too small by so much (docs/numbers.md), alike for all.
pub const HELD_OUT_CHOSEN: f64 = 2e-3;
