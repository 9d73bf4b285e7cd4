//! Bytes to tensors and back: no paths, no threads, no settings. Every parser takes bytes, so that
//! it can be given any.

pub(crate) mod checkpoint_index;
pub(crate) mod compressed_tensors;
pub(crate) mod foreign_checkpoint;
pub(crate) mod gguf;
pub(crate) mod imatrix;
pub(crate) mod llama_file;
pub(crate) mod mlx;
pub(crate) mod model_config;
pub(crate) mod packed;
pub(crate) mod peft;
pub(crate) mod safetensors;
