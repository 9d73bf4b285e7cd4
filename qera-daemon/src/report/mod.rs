//! `report`: what a person looks at. Generations are read as their manifests say, without taking
//! the output folder's lock, and shown as one page (`page`) or a short table (`table`).
//!
//! Nothing is measured here: a figure is the manifest's, a share of two of its figures, or a mean
//! over layers, and the page says which.

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
