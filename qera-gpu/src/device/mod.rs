//! The only place of this crate that calls foreign code.
//!
//! cudarc loads the driver library on first use and each function on its first call, and panics
//! when one is not there. So library and functions are looked for first (`libraries`), and every
//! call goes through `call`, where a panic becomes an error and no answer stays unread. (The
//! process must therefore not be built with panic = "abort".) What is made there is owned:
//! `context`, `memory`, `stream`, `module`, `blas`. Their `Drop` waits for what uses them, frees,
//! and ignores what it cannot tell anybody. `staging` sends rows, `kernels` launches what
//! `kernels/*.cu` says.
#![expect(
    unsafe_code,
    reason = "calls into the CUDA driver and its libraries; each block says why it is sound"
)]

pub(crate) mod blas;
mod call;
pub(crate) mod context;
pub(crate) mod kernels;
pub(crate) mod libraries;
pub(crate) mod memory;
mod module;
pub(crate) mod probe;
pub(crate) mod staging;
pub(crate) mod stream;
