//! Publication. The output folder and its lock are in `out_folder`. A generation is written beside
//! its place and renamed in by `generation` (`generation_files` knows what each of its files
//! holds). It has the adapter in its `forms` (`peft`, `gguf_adapter`, `mlx_adapter`; `written`
//! reads them back) and the manifest (`manifest`) with its seal (`manifest_seal`); where R was not
//! gathered, that has `window_error` in the place of f. W~ is written by `bases` as a checkpoint
//! (`base`, `rounded_base`), packed for engines (`packed_base`) or as a GGUF (`gguf_base`), with
//! what it is worth alone (`base_worth`) and the files beside the weights (`companions`). `check`
//! runs before `current` is switched. `target` holds all of this together, and `belonging` refuses
//! a folder that belongs to another model. `on_publish` tells the user's command, and `notify`
//! hands generations to servers.

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
pub(crate) mod ratio;
pub(crate) mod readme;
pub(crate) mod rounded_base;
pub(crate) mod sample;
pub(crate) mod target;
pub(crate) mod target_modules;
pub(crate) mod window_error;
pub(crate) mod written;
