//! What the tests of the workspace share: generators of inputs and the table of tolerances.

pub mod daemon;
pub mod generate;
pub mod layer_input;
pub mod live;
pub mod matrix;
pub mod model;
pub mod precision;
pub mod reference;
pub mod shards;
pub mod small;
pub mod spectra;
