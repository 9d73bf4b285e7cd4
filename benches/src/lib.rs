//! What the benches share: CPU time, the peak of a core, samples and their spread, exponents, data.
//!
//! Neither criterion nor divan is used. Both time one routine after the other; here a kernel's time
//! means something only beside the core's peak at the same moment, because the machines are shared
//! and their clocks move, so that a sample is a peak, the kernel, the peak again ([`samples`]). The
//! rest, a median and a spread, is a few lines.

pub mod cpu_time;
pub mod data;
pub mod exponent;
pub mod peak;
pub mod samples;
