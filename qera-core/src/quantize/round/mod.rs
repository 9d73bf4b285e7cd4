//! Rounding a weight to a grid: to nearest, or so that the error costs least under a metric.
//!
//! With e = w - q for each output column (m values, one for each input) and a symmetric positive
//! definite H, a rounding costs the sum of e^T H e over the columns, which do not depend on each
//! other.
//!
//! | routine | q | needs | cost (flops) |
//! |---|---|---|---|
//! | [`nearest()`] | the nearest level | nothing | 10 m n |
//! | [`feedback()`] | the nearest level to w and what the inputs rounded before owe | H = L L^T | m^2 n |
//! | [`descent()`] | one code after the other, where it helps | H, a rounding | 2 m^2 n, and 2 m a changed code |
//!
//! # Which H
//! Inputs with the second moment R = E\[x^T x\] lose tr(E^T R E) to the rounding alone. An adapter
//! A B with B free, A fixed, gives all of it back that lies in the span of A under R: min over B of
//! tr((E - A B)^T R (E - A B)) = tr(E^T R_perp E), R_perp = R - R A (A^T R A)^+ A^T R. So what is
//! rounded for such an adapter is W itself, under R_perp. [`damped_metric`] makes H of R,
//! [`projected_metric`] of R and A; both shrink R toward its diagonal, because rounding has many
//! degrees of freedom and R few rows, and add a multiple of the identity.
//!
//! # Scales
//! A block's levels are chosen among [`Grid::candidates`](super::Grid::candidates) when
//! [`feedback()`] comes to it, by its own cost; [`descent()`] leaves them.
//!
//! # References
//! Frantar, Ashkboos, Hoefler and Alistarh, *GPTQ*, ICLR 2023; Chee, Cai, Kuleshov and De Sa,
//! *QuIP*, NeurIPS 2023 (LDLQ, the same rounding); Zhang and Saab, arXiv 2606.01412 (H of an
//! adapter with fixed A). That A may be the solved adapter's, again and again, is this project's.

pub mod descent;
mod error;
pub mod feedback;
pub mod metric;
pub mod nearest;

#[doc(inline)]
pub use descent::{DescentReport, descent, descent_workspace_len};
pub use error::RoundError;
#[doc(inline)]
pub use feedback::{ScaleSearch, feedback, feedback_workspace_len};
#[doc(inline)]
pub use metric::{
    MetricOptions, MetricReport, damped_metric, projected_metric, projected_metric_workspace_len,
};
#[doc(inline)]
pub use nearest::nearest;
