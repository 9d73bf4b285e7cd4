//! qera-daemon: activations and a checkpoint in, a low-rank adapter out.
//!
//! The program is [`command_line`]. Its folders stand on each other in the order that
//! ARCHITECTURE.md lists under "Floors": each imports only from those before it. Other public items
//! are what benches measure and what tests compare with oracles; other programs must not rely on
//! them.

pub(crate) mod calibrate;
pub(crate) mod channel;
pub(crate) mod cli;
pub(crate) mod commands;
pub(crate) mod disk;
pub(crate) mod error;
pub(crate) mod exit;
pub(crate) mod formats;
pub(crate) mod host;
pub(crate) mod judge;
pub(crate) mod network;
pub(crate) mod observe;
pub(crate) mod pipeline;
pub(crate) mod plan;
pub(crate) mod publish;
pub(crate) mod replay;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod settings;
pub(crate) mod solve;
pub(crate) mod source;
pub(crate) mod state;
#[cfg(test)]
mod trials;
pub(crate) mod weights;

pub use calibrate::aside::Aside;
pub use calibrate::blocks::Block;
pub use calibrate::site::{FoldError, SiteStatistics};
pub use cli::command_line;
pub use formats::gguf::blocks::decode_gguf_blocks;
pub use formats::llama_file::LlamaFile;
pub use host::column_major::ColumnMajor;
pub use host::compute::Compute;
pub use host::cores::{Core, Cores};
pub use host::factors::WrittenCorrection;
pub use host::kernels::page_vec::PageVec;
pub use host::kernels::rank_update::{Scratch, fold_products, trace_products};
pub use host::kernels::row_weights::RowWeights;
pub use host::kernels::stored::StoredRows;
pub use host::kernels::{ENTRY_ERROR, Kernel, KernelError, SUM_ROWS};
pub use host::operand::Operand;
pub use host::output_sketch::{OutputSketch, SKETCH_ROWS};
pub use host::solve_error::SolveError;
pub use judge::evidence::{Evidence, score};
pub use judge::held_out::{Choice, ChoiceOrigin, SHRINKAGES};
pub use judge::scores::HeldOut;
pub use solve::alone::{SiteProblem, SolvedLayer};
pub use solve::direct::{LayerProblem, LowRankTerm, SketchedProblem};
pub use solve::on_device::DeviceSolveError;
pub use source::rows::Batch;
