//! The methods other than QERA-exact: the same projection, solved under another statistic.
//!
//! Every method of the comparison has the form `C = S^{-1} SVD_k(S E)` with a scale `S` of its own,
//! and therefore the form `C = E V V^T` with `V` from `E^T S^2 E` (see `projection.rs`):
//!
//! | method | `S^2` | source |
//! |---|---|---|
//! | QERA-approx | `diag(E[x_i^2])` | QERA paper, theorem 2, equations (22) to (24) |
//! | LQER | `diag(s_i^2)`, `s` the mean magnitude | LQER; QERA paper, algorithm 2 |
//! | ZeroQuant-V2 | `I` | Eckart and Young; QERA paper, problem 1 |
//! | weight-only | none, `C = 0` | |
//!
//! QERA-exact is the first of the family: `S^2 = R`, shrunk toward its diagonal if the problem says
//! so.
//!
//! Where an `s_i` is zero the published programs divide by a small constant instead and return
//! factors of 1e6 and more; the projection has no division, so a dead channel is an ordinary one.
//! Scaling `S` as a whole changes nothing.
//!
//! Whatever the method is blind to, its report is not: `f` is the error under the problem's
//! statistic, the full autocorrelation when there is one, so the methods can be compared.

use super::metric::Metric;
use super::{Method, Problem, ReconstructError};

/// The matrix that a method solves with in the place of `R`; `None` for no correction at all.
pub(super) fn metric_of<'a>(
    method: Method,
    problem: &Problem<'a>,
) -> Result<Option<Metric<'a>>, ReconstructError> {
    Ok(match method {
        Method::Exact => Some(Metric::shrunk(problem)),
        Method::Approx => Some(Metric::second_moments(problem)),
        Method::Lqer | Method::LqerMean => {
            let scale = problem
                .scale()
                .ok_or(ReconstructError::MissingScale { method })?;
            Some(Metric::Squares(scale))
        }
        Method::ZeroQuantV2 => Some(Metric::Identity),
        Method::WeightOnly => None,
    })
}
