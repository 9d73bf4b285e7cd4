//! Statistics of a layer's input, each in memory that the caller lends, and in a module that opens
//! with its derivation, cost, error and source.
//!
//! | statistic | state for m = in_features | serves |
//! |---|---|---|
//! | [`Moments`] | 2 m f64 | mean and variance per feature: drift, bias correction |
//! | [`SecondMoment`] | m f64 | E\[x_i^2\]: QERA-approx |
//! | [`MeanAbs`] | m f64 | E\|x_i\|: LQER as its paper defines it |
//! | [`BatchMaxMeanAbs`] | m f64 | the largest batch mean of \|x_i\|: LQER as its code computes it |
//! | [`Autocorrelation`] | m (m + 1) / 2 f64 | R = E\[x^T x\]: QERA-exact |
//! | [`ErrorSketch`] | l - 1 rows of out_features f32 | QERA-exact without R, where E is known before the rows come |
//! | [`NarrowAutocorrelation`] | m (m + 1) / 2 f32 | the same R on a device, and its shards of sums |
//! | [`BlockMeans`] | 3 numbers | held-out error with Student-t intervals |
//!
//! # One recurrence
//! The means are kept as means, not as sums: with total weight N after a batch of weight n_b and
//! batch mean s_b, s += (n_b / N)(s_b - s) (Welford 1962 for n_b = 1; Chan, Golub and LeVeque 1983,
//! eq. 2.1, for batches). A state never grows with the stream, two states merge by the same
//! formula, and the value is usable at any moment.
//!
//! Error bound: each fold rounds the state by a few units of 2^-53, and what is older is damped by
//! 1 - n_b / N, so after B folds the relative error of a sum of non-negative terms is below about 2
//! B 2^-53 (in practice nearer to sqrt B).
//!
//! # Memory
//! `new` lends memory and zeroes it; `resume` lends memory that holds saved values. The states
//! themselves own nothing, so what a snapshot has to keep is the lent slice and the weight. Every
//! refusal leaves the state as it was.
//!
//! # Determinism
//! Features in order, rows in order, one fixed sequence of operations: the same rows in the same
//! batches give the same bits. Another partition into batches changes last bits only
//! ([`BatchMaxMeanAbs`] excepted: there it is the definition).

pub mod autocorrelation;
pub mod batch_max_mean_abs;
mod channels;
mod error;
pub mod error_sketch;
mod fold;
pub mod held_out;
pub mod mean_abs;
pub mod moments;
pub mod narrow_autocorrelation;
pub mod second_moment;
pub mod student_t;

#[doc(inline)]
pub use autocorrelation::{Autocorrelation, BlockShare};
#[doc(inline)]
pub use batch_max_mean_abs::BatchMaxMeanAbs;
pub use error::StatisticError;
#[doc(inline)]
pub use error_sketch::{
    ErrorSketch, OptimumInterval, SketchError, SketchRoom, SketchTotals,
    error_sketch_workspace_len, output_errors,
};
#[doc(inline)]
pub use held_out::{BlockMeans, Interval};
#[doc(inline)]
pub use mean_abs::MeanAbs;
#[doc(inline)]
pub use moments::Moments;
#[doc(inline)]
pub use narrow_autocorrelation::NarrowAutocorrelation;
#[doc(inline)]
pub use second_moment::{DeadChannels, SecondMoment};
#[doc(inline)]
pub use student_t::student_t_quantile;
