//! W~ of layers that were rounded under what was seen of their inputs: made once, kept, and never
//! changed, because later corrections, the base that was written and every number that was judged
//! belong to these very bits.
//!
//! In a folder each layer is a file (`file`), packed (`packed`), with what is known of it
//! (`record`); it is there whole or not at all. A layer that is frozen is read by any number of
//! threads while another one is being frozen.

pub(crate) mod file;
pub(crate) mod packed;
pub(crate) mod record;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::disk;
use crate::disk::sync;
use crate::error::Fatal;
use crate::weights::frozen::file::{ExpectedLayer, RoundedWeight};
use crate::weights::frozen::packed::PackedLayer;
use crate::weights::frozen::record::RoundingRecord;

/// W~ of every layer that has one.
#[derive(Debug)]
pub(crate) struct Frozen {
    /// Where new ones go; in memory where there is none.
    folder: Option<PathBuf>,
    layers: Vec<OnceLock<FrozenLayer>>,
    /// Held by whoever freezes.
    freezing: Mutex<()>,
}

#[derive(Debug)]
struct FrozenLayer {
    record: RoundingRecord,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    InMemory(PackedLayer),
    InFile(PathBuf),
}

/// W~ of a layer that was just rounded.
#[derive(Debug)]
pub(crate) struct NewlyRounded {
    /// Index of the layer.
    pub(crate) layer: usize,
    /// W~ and what it belongs to.
    pub(crate) weight: RoundedWeight,
}

impl Frozen {
    /// None of so many layers; those that will be are kept in memory.
    #[must_use]
    pub(crate) fn in_memory(layers: usize) -> Self {
        Self {
            folder: None,
            layers: (0..layers).map(|_| OnceLock::new()).collect(),
            freezing: Mutex::new(()),
        }
    }

    /// None of so many layers; those that will be are kept in this folder. What a killed run left
    /// half done there is removed.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn in_folder(folder: &Path, layers: usize) -> Result<Self, Fatal> {
        if disk::is_folder(folder) {
            disk::remove_unfinished(folder)?;
        }
        Ok(Self {
            folder: Some(folder.to_path_buf()),
            ..Self::in_memory(layers)
        })
    }

    /// Takes a layer's file as it was read; one that is taken already stays.
    pub(crate) fn take(&mut self, layer: usize, record: RoundingRecord, path: PathBuf) {
        let kept = Kept::InFile(path);
        // Whoever reads takes each layer once.
        let _ = self.layers[layer].set(FrozenLayer { record, kept });
    }

    /// How a layer was rounded; `None` where it is not.
    #[must_use]
    pub(crate) fn record(&self, layer: usize) -> Option<&RoundingRecord> {
        Some(&self.layers.get(layer)?.get()?.record)
    }

    /// Freezes layers, on disk before anybody sees them. One that is frozen already stays as it is;
    /// returns the indices of the others.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn freeze(&self, rounded: Vec<NewlyRounded>) -> Result<Vec<usize>, Fatal> {
        let _freezing = self.freezing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut frozen = Vec::new();
        for NewlyRounded { layer, weight } in rounded {
            if self.record(layer).is_some() {
                continue;
            }
            let record = weight.record.clone();
            let kept = match &self.folder {
                Some(folder) => {
                    create(folder)?;
                    Kept::InFile(file::write(folder, &weight)?)
                }
                None => Kept::InMemory(weight.packed),
            };
            if self.layers[layer].set(FrozenLayer { record, kept }).is_ok() {
                frozen.push(layer);
            }
        }
        Ok(frozen)
    }

    /// Gives `read` W~ of a layer that is frozen; `None` where it is not.
    ///
    /// # Errors
    /// What `read` returns; [`Fatal::StateRefused`] for a file that is not what was written.
    pub(crate) fn with<T>(
        &self,
        layer: usize,
        expected: ExpectedLayer<'_>,
        read: impl FnOnce(&PackedLayer) -> Result<T, Fatal>,
    ) -> Result<Option<T>, Fatal> {
        let Some(frozen) = self.layers.get(layer).and_then(OnceLock::get) else {
            return Ok(None);
        };
        match &frozen.kept {
            Kept::InMemory(packed) => read(packed).map(Some),
            Kept::InFile(path) => {
                let found = file::read(path, expected)?;
                let found = found.filter(|found| found.record == frozen.record);
                let found = found.ok_or_else(|| {
                    file::refuse(path, expected.layer, &"is not the one that was there")
                })?;
                read(&found.packed).map(Some)
            }
        }
    }
}

/// Makes the folder where it is missing.
fn create(folder: &Path) -> Result<(), Fatal> {
    if disk::is_folder(folder) {
        return Ok(());
    }
    disk::create_folders(folder).map_err(Fatal::io(folder, "create"))?;
    folder.parent().map_or(Ok(()), sync)
}
