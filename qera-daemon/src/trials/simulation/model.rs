//! What has to count: a simple model of the watched folder.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use crate::disk::simulated::Image;
use crate::trials::draw::Draw;
use crate::trials::small_run::shard;

/// Different shards.
const SHARDS: usize = 6;
/// Names that files have.
const NAMES: usize = 5;

/// The bytes of each shard.
static BYTES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| (0..SHARDS).map(shard).collect());

/// The number of the shard that has this content, by its BLAKE3.
pub(super) fn shard_of(content: &str) -> Option<usize> {
    let is_it = |bytes: &Vec<u8>| blake3::hash(bytes).to_hex().as_str() == content;
    BYTES.iter().position(is_it)
}

/// Something that a user does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Arrive,
    Truncate,
    Corrupt,
    Delete,
    Rename,
}

/// What the user knows about the shards.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// What the user knows to lie in the folder: shards, and files that are none.
    names: BTreeMap<String, Option<usize>>,
    /// Shards that count: they lay there, whole, when a run ended well, or were consumed.
    pub(super) must: BTreeSet<usize>,
    /// Shards that ever lay there.
    pub(super) may: BTreeSet<usize>,
}

/// The files of a folder that are to be taken, by name; `None` for one that is no shard.
fn present(image: &Image) -> BTreeMap<String, Option<usize>> {
    let names = image.list("activations").into_iter();
    let names = names.filter(|name| name.ends_with(".safetensors") && !name.starts_with('.'));
    let entry = |name: String| {
        let bytes = image.get(&format!("activations/{name}"));
        let number = bytes.and_then(|bytes| BYTES.iter().position(|of| *of == bytes));
        (name, number)
    };
    names.map(entry).collect()
}

fn path(name: &str) -> String {
    format!("activations/{name}")
}

impl Model {
    /// Does something to the folder, and says what.
    pub(super) fn act(&mut self, image: &mut Image, draw: &mut Draw) -> String {
        self.see(image);
        let deeds = [
            Deed::Arrive,
            Deed::Arrive,
            Deed::Arrive,
            Deed::Truncate,
            Deed::Corrupt,
            Deed::Delete,
            Deed::Rename,
        ];
        let deed = *draw.of(&deeds);
        let there: Vec<_> = self.names.keys().cloned().collect();
        let said = if deed == Deed::Arrive || there.is_empty() {
            // A new shard, one that came before, or another under a name that is there.
            let (name, number) = (draw.below(NAMES), draw.below(SHARDS));
            image.put(&path(&format!("s{name}.safetensors")), &BYTES[number]);
            self.may.insert(number);
            format!("{number} as s{name}")
        } else {
            let name = draw.of(&there);
            change(image, draw, name, deed);
            format!("{deed:?} {name}")
        };
        self.names = present(image);
        said
    }

    /// What is not there any more without the user was consumed, so it counts.
    pub(super) fn see(&mut self, image: &Image) {
        let now = present(image);
        let gone = self
            .names
            .iter()
            .filter(|(name, _)| !now.contains_key(*name));
        self.must.extend(gone.filter_map(|(_, number)| *number));
        self.names = now;
    }

    /// A run ended well on what the folder holds.
    pub(super) fn ended_well(&mut self) {
        self.must.extend(self.names.values().flatten());
    }
}

fn change(image: &mut Image, draw: &mut Draw, name: &str, deed: Deed) {
    let mut bytes = image.get(&path(name)).unwrap();
    match deed {
        Deed::Truncate => image.put(&path(name), &bytes[..draw.below(bytes.len())]),
        Deed::Corrupt => {
            // The first byte of the header.
            if let Some(first) = bytes.get_mut(8) {
                *first = b'?';
            }
            image.put(&path(name), &bytes);
        }
        Deed::Rename => {
            let mut free = (0..NAMES).map(|number| format!("r{number}.safetensors"));
            if let Some(to) = free.find(|to| image.get(&path(to)).is_none()) {
                image.put_elsewhere(&path(name), &path(&to));
            }
        }
        Deed::Arrive | Deed::Delete => image.take(&path(name)),
    }
}
