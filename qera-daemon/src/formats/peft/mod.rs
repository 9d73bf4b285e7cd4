//! The two files of a LoRA adapter as PEFT saves them: its configuration (`config`, `targets`), and
//! the tensors of its safetensors file (`tensors`, `values`).

pub(crate) mod config;
pub(crate) mod targets;
pub(crate) mod tensors;
pub(crate) mod values;
