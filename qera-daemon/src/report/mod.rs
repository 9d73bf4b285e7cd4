//! `report`: generations for people to look at, as a page (`page`) or as a short table (`table`).
//! They are shown as their manifests say; the output folder's lock is not taken.
//!
//! Nothing is measured here. Every figure is the manifest's, a share of two of its figures, or a
//! mean over layers, and the page says which.

pub(crate) mod drawing;
pub(crate) mod figures;
pub(crate) mod folder;
pub(crate) mod generation;
pub(crate) mod history;
pub(crate) mod kinds;
pub(crate) mod page;
pub(crate) mod rows;
pub(crate) mod standing;
pub(crate) mod table;
