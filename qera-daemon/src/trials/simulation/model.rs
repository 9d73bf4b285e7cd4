//! What has to count: a simple model of the watched folder.

use std::collections::{BTreeMap, BTreeSet};

use crate::disk::simulated::Image;
use crate::trials::draw::Draw;
use crate::trials::simulation::world::World;

/// Names that files have.
const NAMES: usize = 5;

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
#[derive(Debug)]
pub(super) struct Model {
    world: &'static World,
    /// What the user knows to lie in the folder: shards, and files that are none.
    names: BTreeMap<String, Option<usize>>,
    /// Shards that count: they lay there, whole, when a run ended well, or were consumed.
    pub(super) must: BTreeSet<usize>,
    /// Shards that ever lay there.
    pub(super) may: BTreeSet<usize>,
}

fn path(name: &str) -> String {
    format!("activations/{name}")
}

impl Model {
    /// Of a folder without a shard.
    pub(super) const fn of(world: &'static World) -> Self {
        Self {
            world,
            names: BTreeMap::new(),
            must: BTreeSet::new(),
            may: BTreeSet::new(),
        }
    }

    /// The files of a folder that are to be taken, by name; `None` for one that is no shard.
    fn present(&self, image: &Image) -> BTreeMap<String, Option<usize>> {
        let names = image.list("activations").into_iter();
        let names = names.filter(|name| name.ends_with(".safetensors") && !name.starts_with('.'));
        let entry = |name: String| {
            let bytes = image.get(&path(&name));
            let number = bytes.and_then(|bytes| self.world.shard_with(&bytes));
            (name, number)
        };
        names.map(entry).collect()
    }

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
            let shards = &self.world.shards;
            let (name, number) = (draw.below(NAMES), draw.below(shards.len()));
            image.put(&path(&format!("s{name}.safetensors")), &shards[number]);
            self.may.insert(number);
            format!("{number} as s{name}")
        } else {
            let name = draw.of(&there);
            change(image, draw, name, deed);
            format!("{deed:?} {name}")
        };
        self.names = self.present(image);
        said
    }

    /// What is not there any more without the user was consumed, so it counts.
    pub(super) fn see(&mut self, image: &Image) {
        let now = self.present(image);
        let gone = self
            .names
            .iter()
            .filter(|(name, _)| !now.contains_key(*name));
        self.must.extend(gone.filter_map(|(_, number)| *number));
        self.names = now;
    }

    /// What the folder holds when a run begins.
    pub(super) fn lying(&self) -> BTreeMap<String, Option<usize>> {
        self.names.clone()
    }

    /// A run ended well that began on this. What came while it ran may have come too late for it.
    pub(super) fn ended_well(&mut self, began_on: &BTreeMap<String, Option<usize>>) {
        let names = self.names.iter();
        let lay = names.filter(|(name, number)| began_on.get(*name) == Some(*number));
        self.must.extend(lay.filter_map(|(_, number)| *number));
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
