//! Publication: the output folder and its lock (`out_folder`), a generation written aside and renamed
//! in (`generation`), the adapter in PEFT's format (`peft`), the manifest (`manifest`), W~ as a
//! checkpoint (`base`), all of them in one place (`target`), and the command that is told (`on_publish`).

mod base;
mod generation;
mod manifest;
mod on_publish;
mod out_folder;
mod peft;
mod readme;
mod target;

pub use base::{Base, emit as emit_base};
pub use generation::{Publication, publish};
pub(crate) use manifest::ratio;
pub use manifest::{ErrorRecord, Fingerprints, Inputs, LayerRecord, Manifest, SettingsRecord};
pub use on_publish::{OnPublish, Published};
pub use out_folder::OutFolder;
pub use target::Target;
