//! GGUF, the file of llama.cpp: the types of its tensors by number (`block_type`), and what their
//! blocks hold (`blocks`).

#![cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "a GGUF's tensors are no weights yet; only the tests' door reads blocks"
    )
)]

pub(crate) mod block_type;
pub(crate) mod blocks;
//! GGUF, the file of llama.cpp: metadata, descriptions of tensors, their bytes in blocks. Read from
//! bytes that are distrusted until every number in them was checked.

#![cfg_attr(not(test), expect(dead_code, reason = "weights/gguf reads with it"))]

pub(crate) mod block_type;
pub(crate) mod cursor;
pub(crate) mod error;
pub(crate) mod header;
pub(crate) mod metadata;
