//! GGUF, the file format of llama.cpp: metadata, descriptions of tensors (`header`), the types of
//! tensors by number (`block_type`), decoding and encoding of their blocks (`blocks`), which of the
//! types hold W~ of a grid (`container`), and adapters (`lora`). Bytes are not trusted until every
//! number in them was checked. Files are written as a stream (`writer`).

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
