//! Matrices on this machine: nothing here knows names of layers, files or settings.
//!
//! `cores` and `kernels` are what computes, `offload` a CUDA device beside them, `compute` all of
//! it together, `core_time` what for, `operand` a large matrix made ready for it; `second_moment`
//! is what stands for R, `output_sketch` what stands for G of a layer where R is not gathered,
//! `subspace` finds top eigenvectors, `factors` are A and B, `factor_type` what they are written
//! in, `block_rounding` how where that is blocks; `allocator` is told once what memory to keep.

pub(crate) mod allocator;
pub(crate) mod block_rounding;
pub(crate) mod column_major;
pub(crate) mod compute;
pub(crate) mod core_time;
pub(crate) mod cores;
pub(crate) mod dense;
pub(crate) mod equal_pivots;
pub(crate) mod factor_type;
pub(crate) mod factors;
pub(crate) mod kernels;
pub(crate) mod offload;
pub(crate) mod operand;
pub(crate) mod output_sketch;
pub(crate) mod round;
pub(crate) mod rounding;
pub(crate) mod row_images;
pub(crate) mod row_rounding;
pub(crate) mod second_moment;
pub(crate) mod solve_error;
pub(crate) mod subspace;
pub(crate) mod transpose;
