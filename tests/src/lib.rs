//! What the tests of the workspace share: the daemon as a process, inputs, oracles and the table of
//! tolerances.

pub mod adapter;
pub mod copied_folder;
pub mod daemon;
pub mod disk_shim;
pub mod event;
pub mod fixture;
pub mod generate;
pub mod gguf_file;
pub mod gguf_lora;
pub mod gguf_model;
pub mod gguf_read;
pub mod imatrix_file;
pub mod layer_input;
pub mod live;
pub mod matrix;
pub mod output_folder;
pub mod packed_model;
pub mod planned_run;
pub mod precision;
pub mod quantization;
pub mod reference;
pub mod safetensors_file;
pub mod spectra;
pub mod three_layers;
pub mod tier;
