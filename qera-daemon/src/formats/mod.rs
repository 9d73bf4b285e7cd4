//! Bytes to tensors and back, without paths, threads or settings. Every parser takes bytes, so that
//! tests can give it any.

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
