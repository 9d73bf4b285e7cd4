//! The CUDA side of qera: large products, accumulation of R and eigenproblems on a device.
//!
//! The driver library and cuBLAS are loaded at run time, so the same binary runs on machines with
//! and without them; a machine without a GPU is a normal case, not a failure. [`probe`] says which
//! device there is, or why there is none; [`Offload::open`] makes one ready. Nothing here panics or
//! ends the process, whatever the libraries do: what fails is a [`Reason`] or a [`DeviceError`],
//! and the caller computes on the host instead.
//!
//! - [`Triangle`]: R as it is accumulated, folded with rows in the form in which they came.
//! - [`DeviceOperand`]: a large matrix, uploaded once and multiplied many times (block Krylov).
//! - [`DeviceR`]: R in f64, for products, and for tr(R P P^T).
//! - [`eigen`]: a symmetric eigenproblem, by cuSOLVER.
//!
//! The same calls on the same device model with the same libraries give the same bits: fixed
//! algorithms, a workspace of our own, no atomics, every sum in one order.
//!
//! ```
//! let probe = qera_gpu::probe();
//! println!("{probe}"); // "no CUDA device is used: no CUDA driver library found (tried libcuda.so and 33 more)"
//! ```

mod device;
mod eigen;
mod error;
mod lane;
mod offload;
mod operand;
mod probe;
mod scratch;
mod second_moment;
mod triangle;

pub use device::probe::probe;
pub use eigen::eigen;
pub use error::DeviceError;
pub use offload::{Offload, OffloadOptions, pinned_bytes, shared_bytes};
pub use operand::DeviceOperand;
pub use probe::{Device, Probe, Reason};
pub use second_moment::DeviceR;
pub use triangle::{DeviceRows, PIECE_ROWS, PieceShare, Triangle};
