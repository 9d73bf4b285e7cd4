//! `pack-quantized`, the form in which compressed-tensors packs weights of integers: which of our
//! grids it can hold and what config.json says about them (`scheme`), and the bytes of its tensors
//! (`words`).
//!
//! A linear layer X, [out, in], in groups of g, has: `X.weight_packed` I32 [out, in b / 32], the
//! codes plus 2^(b-1) as one stream of b bits, lowest bits first; `X.weight_scale` [out, in / g];
//! `X.weight_shape` I64 [2]; with zero points also `X.weight_zero_point` I32 [out b / 32, in / g],
//! packed along out. Vectors compare it with the library (`tests/tests/packed_base/`).

pub(crate) mod scheme;
pub(crate) mod words;
