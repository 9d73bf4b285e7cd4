//! qera-core alone: properties against independent oracles, golden vectors of the published
//! program, and what is refused by value. Each routine gets exactly the memory that it asks for.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a step that fails fails the test; rows are made f32"
)]

mod decode;
mod device;
mod golden;
mod grids;
mod held_out;
mod linalg;
mod mxint;
mod reconstruct;
mod refused_rows;
mod rounding;
mod sketch;
mod statistics;
