//! W~ of layers that were rounded by what their rows showed. It is made once, kept, and never
//! changed, because later corrections, the base that was written and every figure that was judged
//! belong to exactly these bits.
//!
//! In a folder each layer has a file (`file`) with W~ packed (`packed`) and a record of how it was
//! made (`record`). A file is there whole or not at all, and so are the files of layers that were
//! rounded together (`marker`). Any number of threads can read frozen layers while another layer is
//! being frozen.

pub(crate) mod file;
pub(crate) mod marker;
pub(crate) mod packed;
pub(crate) mod record;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::disk;
use crate::disk::presence::is_folder;
use crate::disk::sync;
use crate::error::Fatal;
use crate::weights::frozen::file::{ExpectedLayer, RoundedWeight, path_of};
use crate::weights::frozen::packed::PackedLayer;
use crate::weights::frozen::record::RoundingRecord;

/// W~ of every layer that has one.
#[derive(Debug)]
pub(crate) struct Frozen {
    /// The folder for new ones; without it they are kept in memory.
    folder: Option<PathBuf>,
    layers: Vec<OnceLock<FrozenLayer>>,
    /// Locked by whoever freezes.
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

/// W~ of a layer that was rounded just now.
#[derive(Debug)]
pub(crate) struct NewlyRounded {
    /// Index of the layer.
    pub(crate) layer: usize,
    /// W~ and what it belongs to.
    pub(crate) weight: RoundedWeight,
}

impl Frozen {
    /// A store without any W~ yet, for this many layers, which keeps them in memory.
    #[must_use]
    pub(crate) fn in_memory(layers: usize) -> Self {
        Self {
            folder: None,
            layers: (0..layers).map(|_| OnceLock::new()).collect(),
            freezing: Mutex::new(()),
        }
    }

    /// No W~ yet, for this many layers. They will be kept in this folder, from which half-done
    /// files of a killed run are removed.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn in_folder(folder: &Path, layers: usize) -> Result<Self, Fatal> {
        if is_folder(folder)? {
            disk::remove_unfinished(folder)?;
            // What this run goes on from may not be durable yet.
            sync(folder)?;
        }
        Ok(Self {
            folder: Some(folder.to_path_buf()),
            ..Self::in_memory(layers)
        })
    }

    /// Takes over a layer's file that was read. If the layer has W~ already, that stays.
    pub(crate) fn take(&self, layer: usize, record: RoundingRecord, path: PathBuf) {
        let kept = Kept::InFile(path);
        // Each layer is taken over once, by whoever reads.
        let _ = self.layers[layer].set(FrozenLayer { record, kept });
    }

    /// How a layer was rounded; `None` where it is not rounded.
    #[must_use]
    pub(crate) fn record(&self, layer: usize) -> Option<&RoundingRecord> {
        Some(&self.layers.get(layer)?.get()?.record)
    }

    /// Freezes layers that were rounded together. All are on disk before any thread sees one. A
    /// layer that is frozen already stays as it is; the indices of the others are returned.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn freeze(&self, rounded: Vec<NewlyRounded>) -> Result<Vec<usize>, Fatal> {
        let _freezing = self.freezing.lock().unwrap_or_else(PoisonError::into_inner);
        let new = rounded.into_iter();
        let new: Vec<NewlyRounded> = new.filter(|of| self.record(of.layer).is_none()).collect();
        if let Some(folder) = &self.folder {
            write(folder, &new)?;
        }
        let mut frozen = Vec::new();
        for NewlyRounded { layer, weight } in new {
            let record = weight.record.clone();
            let kept = match &self.folder {
                Some(folder) => Kept::InFile(path_of(folder, &weight.layer)),
                None => Kept::InMemory(weight.packed),
            };
            if self.layers[layer].set(FrozenLayer { record, kept }).is_ok() {
                frozen.push(layer);
            }
        }
        Ok(frozen)
    }

    /// Gives `read` W~ of a frozen layer; `None` where the layer is not frozen.
    ///
    /// # Errors
    /// Any error of `read`; [`Fatal::StateRefused`] for a file that is not what was written.
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

/// Writes the files of layers, and then the marker that makes them count.
fn write(folder: &Path, new: &[NewlyRounded]) -> Result<(), Fatal> {
    if new.is_empty() {
        return Ok(());
    }
    create(folder)?;
    let names: Vec<&str> = new.iter().map(|of| of.weight.layer.as_str()).collect();
    marker::withdraw(folder, &names)?;
    for of in new {
        file::write(folder, &of.weight)?;
    }
    marker::mark(folder, &names)
}

/// Makes the folder where it is missing.
fn create(folder: &Path) -> Result<(), Fatal> {
    if is_folder(folder)? {
        return Ok(());
    }
    disk::create_folders(folder)?;
    folder.parent().map_or(Ok(()), sync)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::rounding::Rounding;
    use crate::weights::frozen::packed::PackedShape;
    use qera_core::quantize::Levels;

    const SHAPE: PackedShape = PackedShape {
        in_features: 2,
        out_features: 1,
        block_size: 2,
    };
    const EXPECTED: ExpectedLayer<'_> = ExpectedLayer {
        layer: "a/../b",
        in_features: 2,
        out_features: 1,
    };

    fn rounded(layer: usize, values: [f32; 2]) -> NewlyRounded {
        let levels = Levels {
            step: 1.0,
            lowest: -1.0,
            highest: 1.0,
        };
        let packed = PackedLayer::pack(SHAPE, &values, &[levels]).unwrap();
        let record = RoundingRecord {
            rounding: Rounding::Feedback,
            rank: 0,
            shrinkage: 0.1,
            shrinkage_asked: "auto".into(),
            base_share: None,
            damping: 0.01,
            grid: "mxint2, block_size 2".into(),
            block_size: 2,
            rows: 7,
            journal_position: 1,
            left_out: vec![3],
            blocks_seen: 4,
            measured: None,
            digest: packed.digest(),
        };
        let weight = RoundedWeight {
            layer: EXPECTED.layer.into(),
            weight: "blake3:0".into(),
            record,
            packed,
        };
        NewlyRounded { layer, weight }
    }

    fn values(frozen: &Frozen, layer: usize) -> Option<Vec<f32>> {
        let read = |packed: &PackedLayer| {
            let mut values = vec![0.0; 2];
            packed.unpack(0, &mut values);
            Ok(values)
        };
        frozen.with(layer, EXPECTED, read).unwrap()
    }

    #[test]
    fn what_is_frozen_stays() {
        let frozen = Frozen::in_memory(2);
        assert_eq!(values(&frozen, 0), None);
        let newly = frozen.freeze(vec![rounded(0, [1.0, -1.0])]).unwrap();
        assert_eq!(newly, [0]);
        let both = vec![rounded(0, [0.0, 0.0]), rounded(1, [1.0, 1.0])];
        assert_eq!(
            frozen.freeze(both).unwrap(),
            [1],
            "only the other one is new"
        );
        assert_eq!(values(&frozen, 0), Some(vec![1.0, -1.0]));
        assert_eq!(frozen.record(0).map(|of| of.rows), Some(7));
    }

    /// The first thread decides, and all others read what it wrote.
    #[test]
    fn threads_that_freeze_one_layer_agree() {
        let name = format!("qera-frozen-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let frozen = Frozen::in_folder(&folder, 1).unwrap();
        let shown: Vec<_> = std::thread::scope(|scope| {
            let all = [-1.0, 0.0, 1.0].map(|value| {
                let frozen = &frozen;
                scope.spawn(move || {
                    let newly = frozen.freeze(vec![rounded(0, [value, 1.0])]).unwrap();
                    (newly.len(), values(frozen, 0).unwrap())
                })
            });
            all.map(|thread| thread.join().unwrap()).into()
        });
        assert_eq!(shown.iter().map(|(newly, _)| newly).sum::<usize>(), 1);
        assert!(shown.iter().all(|(_, values)| *values == shown[0].1));
        // A name that is no file name still gives a file in the folder.
        let files = std::fs::read_dir(&folder).unwrap();
        let names = files.map(|file| file.unwrap().file_name());
        let is_layer = |name: &std::ffi::OsString| !name.to_string_lossy().ends_with(".done");
        let files: Vec<_> = names.filter(is_layer).collect();
        assert_eq!(files.len(), 1);
        assert!(
            files[0].to_string_lossy().starts_with("layer-"),
            "{files:?}"
        );

        std::fs::remove_file(folder.join(&files[0])).unwrap();
        let gone = frozen.with(0, EXPECTED, |_| Ok(())).unwrap_err();
        assert_eq!(gone.exit(), crate::exit::Exit::StateRefused);
        assert!(
            gone.to_string().contains("is not the one that was there"),
            "{gone}"
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
