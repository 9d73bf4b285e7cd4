//! What an undisturbed run leaves of some shards in some order.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::disk::simulated::{Disk, Image, Trouble};
use crate::trials::simulation::one_run::OneRun;
use crate::trials::simulation::world::World;

/// The parts of a disk that are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    /// The adapter.
    pub(super) adapter: Vec<u8>,
    /// Each site's statistics.
    pub(super) statistics: Vec<Vec<u8>>,
}

/// Shards in an order, and the rank.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asked {
    /// Of what.
    pub(super) world: &'static str,
    pub(super) shards: Vec<usize>,
    pub(super) rank: usize,
}

impl Left {
    /// What lies on a disk; `None` where there is no generation.
    pub(super) fn of(image: &Image) -> Option<Self> {
        let folder = newest_snapshot(image)?;
        let names = image.list(&folder).into_iter();
        let statistics = names.filter(|name| name.ends_with("statistics.safetensors"));
        let statistics = statistics.map(|name| image.get(&format!("{folder}/{name}")));
        Some(Self {
            adapter: image.get("out/current/adapter_model.safetensors")?,
            statistics: statistics.collect::<Option<_>>()?,
        })
    }
}

/// The newest snapshot that has a number.
fn newest_snapshot(image: &Image) -> Option<String> {
    let names = image.list("out/state/snapshots").into_iter();
    let newest = names.filter_map(|name| name.parse::<u64>().ok().map(|of| (of, name)));
    let (_, name) = newest.max()?;
    Some(format!("out/state/snapshots/{name}"))
}

static KNOWN: LazyLock<Mutex<BTreeMap<Asked, Left>>> = LazyLock::new(Mutex::default);

/// The files that one run leaves after taking in these shards.
pub(super) fn undisturbed(world: &World, asked: &Asked) -> Left {
    // Held, so that nobody else runs on the disk of this name.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(left) = known.get(asked) {
        return left.clone();
    }
    let names: Vec<_> = asked.shards.iter().map(usize::to_string).collect();
    let name = format!("oracle-{}-{}-{}", world.name, names.join("-"), asked.rank);
    let disk = Disk::mount(&name, world.folder(&asked.shards), Trouble::None);
    let run = OneRun::to_the_end(0, &format!("{}rank = {}", world.options, asked.rank));
    run.on(&disk, |_| String::new()).ended.unwrap().unwrap();
    let left = Left::of(&disk.image()).unwrap();
    Disk::unmount(&name);
    known.insert(asked.clone(), left.clone());
    left
}
