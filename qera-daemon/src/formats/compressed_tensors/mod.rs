//! The form in which compressed-tensors packs weights of integers, `pack-quantized`: which of our
//! grids it holds and what config.json says of them (`scheme`), and the bytes of its tensors
//! (`words`).
//!
//! Of a linear layer X, [out, in], in groups of g: `X.weight_packed` I32 [out, in b / 32], the
//! codes plus 2^(b-1) as one stream of b bits, lowest bits first; `X.weight_scale` [out, in / g];
//! `X.weight_shape` I64 [2]; with zero points `X.weight_zero_point` I32 [out b / 32, in / g],
//! packed along out. Held against the library by vectors (`tests/tests/packed_base/`).

pub(crate) mod scheme;
pub(crate) mod words;
