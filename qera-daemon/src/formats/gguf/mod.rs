//! GGUF, the file of llama.cpp: metadata, descriptions of tensors (`header`), the types of tensors
//! by number (`block_type`), what their blocks hold (`blocks`), and which of them hold W~ of a grid
//! (`container`); an adapter in one (`lora`). Read from bytes that are distrusted until every
//! number in them was checked, written in a stream (`writer`).

pub(crate) mod block_type;
pub(crate) mod blocks;
pub(crate) mod container;
pub(crate) mod cursor;
pub(crate) mod error;
pub(crate) mod header;
pub(crate) mod lora;
pub(crate) mod lora_matrix;
pub(crate) mod metadata;
pub(crate) mod shape;
pub(crate) mod writer;
