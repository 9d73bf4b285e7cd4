//! Publication: the output folder and its lock (`out_folder`), a generation written aside and renamed
//! in (`generation`), the adapter in PEFT's format (`peft`), the manifest (`manifest`), and W~ as a
//! checkpoint (`base`).

mod base;
mod generation;
mod manifest;
mod out_folder;
mod peft;
mod readme;

pub use base::{Base, emit as emit_base};
pub use generation::{Publication, publish};
pub(crate) use manifest::ratio;
pub use manifest::{ErrorRecord, Fingerprints, Inputs, LayerRecord, Manifest, SettingsRecord};
pub use out_folder::OutFolder;
