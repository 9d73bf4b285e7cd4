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
