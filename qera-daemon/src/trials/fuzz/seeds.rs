//! The sound files that inputs are made of: those of the fixture, those that other people's
//! software wrote, and what one run of the daemon leaves.

use std::path::Path;
use std::sync::LazyLock;

use serde_json::Value;

use crate::trials::small_run::{RealFolder, run_once};

/// Made by other people's software (`tests/gguf/headers/make.py`).
pub(crate) const GGUF: [&[u8]; 3] = [
    include_bytes!("../../../../tests/gguf/headers/model.gguf"),
    include_bytes!("../../../../tests/gguf/headers/adapter.gguf"),
    include_bytes!("../../../../tests/gguf/headers/imatrix.gguf"),
];
/// The older layout of an imatrix.
pub(crate) const LEGACY_IMATRIX: &[u8] =
    include_bytes!("../../../../tests/gguf/headers/imatrix.dat");

/// Files as JSON, and files that hold tensors.
#[derive(Debug)]
pub(crate) struct Seeds {
    /// Headers of safetensors files.
    pub(crate) headers: Vec<Value>,
    /// The configuration of the fixture's model.
    pub(crate) config: Value,
    /// Lines of the journal.
    pub(crate) journal: Vec<Value>,
    /// Index of a snapshot.
    pub(crate) index: Value,
    /// `sites.json`.
    pub(crate) sites: Value,
    /// `status.json`.
    pub(crate) status: Value,
    /// The manifest of a generation.
    pub(crate) manifest: Value,
    /// The adapter's configuration.
    pub(crate) adapter: Value,
    /// A site's statistics.
    pub(crate) statistics: TensorSeed,
    /// A site's progress.
    pub(crate) progress: TensorSeed,
}

/// A file of tensors of the state.
#[derive(Debug)]
pub(crate) struct TensorSeed {
    /// The header.
    pub(crate) header: Value,
    /// The record in its metadata.
    pub(crate) record: Value,
    /// The bytes of the tensors.
    pub(crate) data: Vec<u8>,
}

/// All of them, made once.
pub(crate) static SEEDS: LazyLock<Seeds> = LazyLock::new(Seeds::make);

impl Seeds {
    fn make() -> Self {
        let folder = RealFolder::with_shards("fuzz-seeds", 2);
        // A site that was solved while rows came has vectors and evidence; without rows kept aside
        // and a window a record has nothing to be wrong about.
        run_once(&folder.0, "").unwrap();
        let snapshot = "out/state/snapshots/000001";
        // Of the site that has two layers; sites are in the order of their names.
        let tensors = |kind: &str| {
            let path = format!("{snapshot}/00001.{kind}.safetensors");
            TensorSeed::of(&folder.read(&path))
        };
        let sealed = |name: &str| unsealed(&folder.read(&format!("out/state/{name}")));
        let generation = |name: &str| folder.read(&format!("out/current/{name}"));
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
        let fixture = |name: &str| std::fs::read(fixtures.join(name)).unwrap();
        Self {
            headers: vec![
                header(&fixture("activations/activations-00.safetensors")),
                header(&folder.read("activations/shard-0.safetensors")),
                header(&generation("adapter_model.safetensors")),
            ],
            config: serde_json::from_slice(&fixture("model/config.json")).unwrap(),
            journal: sealed("journal"),
            index: sealed("snapshots/000001/index.json").remove(0),
            sites: sealed("sites.json").remove(0),
            status: serde_json::from_slice(&folder.read("out/state/status.json")).unwrap(),
            manifest: serde_json::from_slice(&generation("qera_manifest.json")).unwrap(),
            adapter: serde_json::from_slice(&generation("adapter_config.json")).unwrap(),
            statistics: tensors("statistics"),
            progress: tensors("progress"),
        }
    }
}

/// The values of sealed lines.
fn unsealed(bytes: &[u8]) -> Vec<Value> {
    let text = core::str::from_utf8(bytes).unwrap();
    let value = |line: &str| serde_json::from_str(line.rsplit_once('\t').unwrap().0).unwrap();
    text.lines().map(value).collect()
}

/// The header of a safetensors file.
fn header(bytes: &[u8]) -> Value {
    serde_json::from_slice(&bytes[8..][..length(bytes)]).unwrap()
}

fn length(bytes: &[u8]) -> usize {
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap());
    usize::try_from(length).unwrap()
}

impl TensorSeed {
    /// The site that it is of.
    pub(crate) fn key(&self) -> &str {
        self.record["key"].as_str().unwrap()
    }

    fn of(bytes: &[u8]) -> Self {
        let mut header = header(bytes);
        let record = header["__metadata__"]["qera.site"].take();
        Self {
            record: serde_json::from_str(record.as_str().unwrap()).unwrap(),
            data: bytes[8 + length(bytes)..].to_vec(),
            header,
        }
    }
}
