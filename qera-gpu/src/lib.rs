//! The CUDA side of qera: large products and accumulation of R on a device.
//!
//! The driver library and cuBLAS are loaded at run time, so the same binary runs on machines with
//! and without them; a machine without a GPU is a normal case, not a failure. [`Offload::open`]
//! makes a device ready, or says why there is none. Nothing here panics or ends the process,
//! whatever the libraries do: what fails is a [`Reason`] or a [`DeviceError`], and the caller
//! computes on the host instead.
//!
//! - [`Triangle`]: R as it is accumulated, folded with rows in the form in which they came.
//! - [`DeviceOperand`]: a large matrix, uploaded once and multiplied many times (block Krylov).
//! - [`DeviceR`]: R in f64, for products, and for tr(R P P^T).
//! - [`DeviceFeedback`]: the feedback between inputs while a weight is rounded.
//!
//! The same calls on the same device model with the same libraries give the same bits: fixed
//! algorithms, a workspace of our own, no atomics, every sum in one order.
//!
//! ```
//! use qera_gpu::{Offload, OffloadOptions};
//! match Offload::open(&OffloadOptions::default()) {
//!     Ok(offload) => println!("computing on {}", offload.device()),
//!     // "no CUDA driver library found (tried libcuda.so and 33 more)"
//!     Err(reason) => println!("computing on the host: {reason}"),
//! }
//! ```

mod device;
mod error;
mod factor;
mod feedback;
mod lane;
mod offload;
mod operand;
mod probe;
mod scratch;
mod second_moment;
mod triangle;

pub use device::libraries::{DRIVER_FUNCTIONS, check_driver};
pub use device::probe::device_count;
pub use error::DeviceError;
pub use feedback::DeviceFeedback;
pub use offload::{DeviceMemory, Offload, OffloadOptions, pinned_bytes, shared_bytes};
pub use operand::DeviceOperand;
pub use probe::{Device, Reason};
pub use second_moment::DeviceR;
pub use triangle::{DeviceRows, PIECE_ROWS, PieceShare, Triangle};
