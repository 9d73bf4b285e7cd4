//! Publication: the output folder and its lock (`out_folder`), a generation written beside its
//! place and renamed in (`generation`; its files and what they hold: `generation_files`), the
//! adapter in its `forms` (`peft`, `gguf_adapter`, `mlx_adapter`; read back by `written`), the
//! manifest (`manifest`) and its seal (`manifest_seal`), W~ as a checkpoint (`base`,
//! `rounded_base`), packed for engines (`packed_base`) and as a GGUF (`gguf_base`), with what it is
//! worth alone (`base_worth`) and what lies beside the weights (`companions`), all of them by
//! `bases`, the check that comes before `current` is switched (`check`), all of them in one place
//! (`target`, and `belonging`: what a folder is of), the command that is told (`on_publish`) and
//! the servers that generations are handed to (`notify`).

pub(crate) mod asked_dtype;
pub(crate) mod base;
pub(crate) mod base_files;
pub(crate) mod base_worth;
pub(crate) mod bases;
pub(crate) mod belonging;
pub(crate) mod bits;
pub(crate) mod check;
pub(crate) mod companions;
pub(crate) mod current;
pub(crate) mod diagonal_worth;
pub(crate) mod forms;
pub(crate) mod generation;
pub(crate) mod generation_files;
pub(crate) mod generation_id;
pub(crate) mod gguf_adapter;
pub(crate) mod gguf_base;
pub(crate) mod hashed_file;
pub(crate) mod kept;
pub(crate) mod layer_rounding;
pub(crate) mod layers;
pub(crate) mod manifest;
pub(crate) mod manifest_seal;
pub(crate) mod mlx_adapter;
pub(crate) mod notify;
pub(crate) mod on_publish;
pub(crate) mod out_folder;
pub(crate) mod packed_base;
pub(crate) mod peft;
pub(crate) mod readme;
pub(crate) mod rounded_base;
pub(crate) mod sample;
pub(crate) mod target;
pub(crate) mod target_modules;
pub(crate) mod written;
