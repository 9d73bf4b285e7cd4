//! A site's files in a snapshot, under the hash that the index would name.

use core::cell::RefCell;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::changed;
use super::safetensors::with_length;
use crate::host::second_moment::SecondMomentKind;
use crate::state::progress_file::{ExpectedProgress, LayerSize, read_progress, write_progress};
use crate::state::statistics_file::{
    ExpectedStatistics, read_channels, read_statistics, write_statistics,
};
use crate::trials::draw::Draw;
use crate::trials::fuzz::Target;
use crate::trials::fuzz::mutation::mutate_bytes;
use crate::trials::fuzz::seeds::{SEEDS, TensorSeed};
use crate::trials::small_run::LAYERS;

pub(super) const STATISTICS: Target = Target {
    name: "statistics",
    make: |draw| make(&SEEDS.statistics, draw),
    read: read_statistics_file,
};
pub(super) const PROGRESS: Target = Target {
    name: "progress",
    make: |draw| make(&SEEDS.progress, draw),
    read: read_progress_file,
};

/// A file made of a sound one: its header, its record or its tensors are changed.
pub(super) fn make(seed: &TensorSeed, draw: &mut Draw) -> Vec<u8> {
    let (mut header, mut record) = (seed.header.clone(), seed.record.clone());
    match draw.below(4) {
        0 => header = changed(&header, draw),
        1 | 2 => record = changed(&record, draw),
        _ => {}
    }
    if let Some(metadata) = header
        .get_mut("__metadata__")
        .and_then(Value::as_object_mut)
    {
        metadata.insert("qera.site".into(), json!(record.to_string()));
    }
    let mut data = seed.data.clone();
    if draw.once_in(4) {
        mutate_bytes(&mut data, &seed.data, draw);
    }
    [with_length(&header), data].concat()
}

thread_local! {
    /// A file of this thread's own.
    static FILE: RefCell<OwnFile> = RefCell::new(OwnFile::new());
}

struct OwnFile(PathBuf);

impl OwnFile {
    fn new() -> Self {
        let name = format!(
            "qera-fuzz-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        );
        // In memory where the system has such a folder: the files are synced, a hundred thousand of
        // them.
        let memory = Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => memory.to_path_buf(),
            false => std::env::temp_dir(),
        };
        Self(folder.join(name))
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs something on a file that holds these bytes, under their hash.
pub(super) fn on_file<T>(bytes: &[u8], run: impl FnOnce(&Path, &str) -> T) -> T {
    FILE.with_borrow(|file| {
        std::fs::write(&file.0, bytes).unwrap();
        run(&file.0, blake3::hash(bytes).to_hex().as_str())
    })
}

fn read_statistics_file(bytes: &[u8]) -> bool {
    let expected = ExpectedStatistics {
        key: SEEDS.statistics.key(),
        in_features: LAYERS[0].1[1],
        second_moment: SecondMomentKind::Packed,
        sketch: None,
    };
    is_read_back(bytes, expected)
}

/// Whether these are statistics; such are written, and what is read then is written the same.
pub(super) fn is_read_back(bytes: &[u8], expected: ExpectedStatistics<'_>) -> bool {
    on_file(bytes, |path, hash| {
        let channels = read_channels(path, hash, expected.key).is_ok();
        let Ok(statistics) = read_statistics(path, hash, expected) else {
            return false;
        };
        assert!(channels, "the moments of single channels are a part of it");
        let hash = write_statistics(path, expected.key, &statistics).unwrap();
        let again = read_statistics(path, hash.to_hex().as_str(), expected).unwrap();
        assert_eq!(write_statistics(path, expected.key, &again).unwrap(), hash);
        true
    })
}

fn read_progress_file(bytes: &[u8]) -> bool {
    let size = |[out_features, in_features]: [usize; 2]| LayerSize {
        in_features,
        out_features,
    };
    // In the order of their names.
    let layers = [size(LAYERS[1].1), size(LAYERS[0].1)];
    on_file(bytes, |path, hash| {
        let expected = ExpectedProgress {
            key: SEEDS.progress.key(),
            layers: &layers,
            scored_share: 0.5,
        };
        let Ok(read) = read_progress(path, hash, expected) else {
            return false;
        };
        let mut statistics = crate::SiteStatistics::whole(8);
        statistics.aside = read.aside;
        let hash = write_progress(path, expected.key, &statistics, &read.progress).unwrap();
        let again = read_progress(path, hash.to_hex().as_str(), expected).unwrap();
        statistics.aside = again.aside;
        let written = write_progress(path, expected.key, &statistics, &again.progress);
        assert_eq!(written.unwrap(), hash);
        true
    })
}
