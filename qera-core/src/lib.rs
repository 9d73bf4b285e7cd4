//! The mathematics of quantization error reconstruction, in memory that the caller lends.
//!
//! A weight W is replaced by a quantized W~. QERA (Zhang, Wong, Xiao, Constantinides and Zhao,
//! ICLR 2025) gives the rank-k term C = A B that brings x (W~ + C) as close as possible to x W
//! over the inputs x that the layer really sees. This crate holds every step of that: no std, no
//! heap, no unsafe, no files, no threads. It runs in a daemon and on the control processor of an
//! accelerator alike.
//!
//! # A tour, in the order of the data
//! 1. [`dtype`]: little-endian f32, f16 or bf16 activations become f32; NaN, infinity and what
//!    would overflow is refused by row and column; padding rows are dropped.
//! 2. [`rows`]: the checked form in which statistics take them, with optional weights.
//! 3. [`statistics`]: running means of them: second moments, mean magnitudes, the autocorrelation R
//!    = E\[x^T x\], and the held-out error over blocks with its Student-t interval. They update,
//!    merge and resume.
//! 4. [`packed`]: how a symmetric matrix lies in half the memory.
//! 5. [`quantize`]: W~ itself, as numbers and packed, rounded to nearest or by what its error
//!    costs.
//! 6. [`linalg`]: eigenvalues, singular values, matrix square roots: one routine a module, each
//!    with its derivation.
//! 7. [`reconstruct`]: A and B from E = W - W~ and a statistic, by every method of the paper, with
//!    an honest report.
//!
//! [`device`] puts 1 to 3 and 7 together for a microcontroller: one struct over one lent buffer.
//!
//! Beside them [`pseudo_random`]: the one fixed sequence that starting blocks and samples are drawn
//! from.
//!
//! Each routine is explained by the module that it comes from: derivation, cost, error bound and
//! source. Its own page has shapes, memory, errors and an example. What is re-exported one level up
//! is the same item.
//!
//! # Conventions
//! Row vectors, as in the paper: y = x W, W is m x n with m = in_features and n = out_features, R
//! is m x m. A checkpoint stores W transposed, `[out_features, in_features]` row-major, which is
//! the same memory as W column-major: no copy.
//!
//! Memory is lent by the caller as slices or nalgebra views. Where a routine needs workspace, a
//! companion function whose name ends in `_workspace_len` says how much, exactly; less is refused
//! as a value. Products are f32 where activations are multiplied, everything summed or solved is
//! f64. What data can cause is an error value with numbers in it; nothing that a caller can pass
//! makes a routine panic. The same input gives the same bits.
//!
//! # Example: from bytes to the statistic of QERA-approx
//! ```
//! use qera_core::{dtype::{FloatDtype, decode_rows}, rows::Rows, statistics::SecondMoment};
//! let bytes = [0x80, 0x3f, 0x00, 0x40, 0x40, 0x40, 0x80, 0xc0]; // bf16: [1, 2] and [3, -4]
//! let (mut activations, mut lent) = ([0.0; 4], [0.0; 2]);
//! let kept = decode_rows(&bytes, FloatDtype::Bf16, 2, None, &mut activations)?;
//! let mut second_moment = SecondMoment::new(&mut lent)?;
//! second_moment.update(&Rows::new(&activations[..kept * 2], 2)?)?;
//! assert_eq!(second_moment.values(), [5.0, 10.0]);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

pub mod device;
pub mod dtype;
pub mod linalg;
pub mod packed;
pub mod pseudo_random;
pub mod quantize;
pub mod reconstruct;
pub mod rows;
pub mod statistics;

/// The example of the README, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
