//! What stands for R: packed in f64 (`packed`), and as the S that a method solves with (`metric`).

pub(crate) mod metric;
pub(crate) mod packed;
