//! From a site's statistics and its layers' weights to the low-rank terms, and what they are worth.
//!
//! `site` is the order of events; `error_matrix` is E; `metric` says what stands in the place of R for each method;
//! `subspace` finds the top eigenvectors of G = E^T S E; `held_out` judges candidates on the window
//! and chooses the shrinkage; `factors` balances and rounds A and B; `yardstick` measures f; `schedule` says
//! when a site is solved again, `evidence` what new rows say of the corrections before, `closing` when a site has
//! rows enough and when it has not any more.

mod basis;
mod candidates;
mod closing;
mod cost;
mod direct;
mod error_matrix;
mod evidence;
mod factors;
mod gap;
mod held_out;
mod layers;
mod metric;
mod operator;
mod packed_r;
mod schedule;
mod site;
mod subspace;
mod training;
mod yardstick;

pub use closing::{Drift, Turn};
pub use cost::Quantity;
pub use direct::{LayerProblem, LowRankTerm};
pub use evidence::{Correction, Evidence, LayerProgress, LayerSummary, score};
pub use factors::{Factors, Rounded};
pub use gap::Solved;
pub use held_out::{Choice, ChoiceOrigin, HeldOut, SHRINKAGES};
pub use schedule::{Folding, SiteProgress, first_point, longest_wait};
pub use site::{LayerSolution, SiteSolver, SolvePoint, Status};

pub(crate) use packed_r::narrow;
