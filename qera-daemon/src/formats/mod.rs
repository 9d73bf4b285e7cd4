//! Bytes to tensors and back.

pub(crate) mod safetensors;
