//! What the runs of a history work on: three small layers, or the fixture's first block.

use std::path::Path;
use std::sync::LazyLock;

use crate::disk::simulated::Image;
use crate::trials::small_run::{self, LAYERS, image_of};

/// Different shards.
const SHARDS: usize = 6;
/// One history in so many is on the fixture.
const ON_THE_FIXTURE: u64 = 100;

/// A checkpoint and its shards.
#[derive(Debug)]
pub(super) struct World {
    pub(super) name: &'static str,
    checkpoint: Vec<u8>,
    config: Vec<u8>,
    /// The bytes of each shard.
    pub(super) shards: Vec<Vec<u8>>,
    /// Options of every run.
    pub(super) options: &'static str,
    pub(super) layers: usize,
    /// Of a shard, for each layer.
    pub(super) rows: usize,
}

static SMALL: LazyLock<World> = LazyLock::new(|| World {
    name: "small",
    checkpoint: small_run::checkpoint(),
    config: small_run::CONFIG.into(),
    shards: (0..SHARDS).map(small_run::shard).collect(),
    options: small_run::OPTIONS,
    layers: LAYERS.len(),
    rows: small_run::ROWS,
});

static FIXTURE: LazyLock<World> = LazyLock::new(|| {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let read = |path: &str| std::fs::read(fixtures.join(path)).unwrap();
    let shard = |number| read(&format!("activations/activations-{number:02}.safetensors"));
    World {
        name: "fixture",
        checkpoint: read("model/model.safetensors"),
        config: read("model/config.json"),
        shards: (0..SHARDS).map(shard).collect(),
        options: "quantizer = \"mxint3\"\ninclude = [\"model.layers.0.*\"]\n",
        layers: 7,
        rows: 512,
    }
});

impl World {
    /// Of the history of this number.
    pub(super) fn of(number: u64) -> &'static Self {
        match number % ON_THE_FIXTURE == ON_THE_FIXTURE / 2 {
            true => &FIXTURE,
            false => &SMALL,
        }
    }

    /// A disk with the checkpoint and these shards, in the order of their names.
    pub(super) fn folder(&self, shards: &[usize]) -> Image {
        let shards = shards.iter().map(|&number| self.shards[number].clone());
        image_of(&self.checkpoint, &self.config, shards)
    }

    /// Which shard a content is, by its BLAKE3.
    pub(super) fn shard_of(&self, content: &str) -> Option<usize> {
        let is_it = |bytes: &Vec<u8>| blake3::hash(bytes).to_hex().as_str() == content;
        self.shards.iter().position(is_it)
    }

    /// Which shard these bytes are.
    pub(super) fn shard_with(&self, bytes: &[u8]) -> Option<usize> {
        self.shards.iter().position(|of| of == bytes)
    }
}
