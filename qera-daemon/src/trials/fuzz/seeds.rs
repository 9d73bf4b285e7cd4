//! The sound files that inputs are made of: those of the fixture, those that other people's
//! software wrote, and what one run of the daemon left.
//!
//! What the run left lies in `seeds/`, because its numbers end in other digits on another CPU: an
//! input is to be the same wherever its number is run. A test holds it against a run of today.

use std::path::Path;
use std::sync::LazyLock;

use serde_json::Value;

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

/// A file of a run, by its path in the run's folder.
struct SeedFile {
    path: &'static str,
    bytes: &'static [u8],
}

/// What a run of two shards left. Of the two sites the files of the one that has two layers: sites
/// are in the order of their names. A site that was solved while rows came has vectors and
/// evidence; without rows kept aside and a window a record has nothing to be wrong about.
const FILES: [SeedFile; 10] = [
    SeedFile {
        path: "activations/000.safetensors",
        bytes: include_bytes!("seeds/000.safetensors"),
    },
    SeedFile {
        path: "out/current/adapter_model.safetensors",
        bytes: include_bytes!("seeds/adapter_model.safetensors"),
    },
    SeedFile {
        path: "out/current/adapter_config.json",
        bytes: include_bytes!("seeds/adapter_config.json"),
    },
    SeedFile {
        path: "out/current/qera_manifest.json",
        bytes: include_bytes!("seeds/qera_manifest.json"),
    },
    SeedFile {
        path: "out/state/journal",
        bytes: include_bytes!("seeds/journal"),
    },
    SeedFile {
        path: "out/state/sites.json",
        bytes: include_bytes!("seeds/sites.json"),
    },
    SeedFile {
        path: "out/state/status.json",
        bytes: include_bytes!("seeds/status.json"),
    },
    SeedFile {
        path: "out/state/snapshots/000001/index.json",
        bytes: include_bytes!("seeds/index.json"),
    },
    SeedFile {
        path: "out/state/snapshots/000001/00001.statistics.safetensors",
        bytes: include_bytes!("seeds/00001.statistics.safetensors"),
    },
    SeedFile {
        path: "out/state/snapshots/000001/00001.progress.safetensors",
        bytes: include_bytes!("seeds/00001.progress.safetensors"),
    },
];

/// All of them, read once.
pub(crate) static SEEDS: LazyLock<Seeds> = LazyLock::new(|| Seeds::of(&kept));

/// The bytes of a file whose name ends so.
fn kept(end: &str) -> Vec<u8> {
    let mut files = FILES.iter();
    files
        .find(|of| of.path.ends_with(end))
        .unwrap()
        .bytes
        .to_vec()
}

impl Seeds {
    /// Of the files of a run.
    fn of(read: &dyn Fn(&str) -> Vec<u8>) -> Self {
        let json = |name: &str| serde_json::from_slice(&read(name)).unwrap();
        let sealed = |name: &str| unsealed(&read(name));
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
        let fixture = |name: &str| std::fs::read(fixtures.join(name)).unwrap();
        Self {
            headers: vec![
                header(&fixture("activations/activations-00.safetensors")),
                header(&read("000.safetensors")),
                header(&read("adapter_model.safetensors")),
            ],
            config: serde_json::from_slice(&fixture("model/config.json")).unwrap(),
            journal: sealed("journal"),
            index: sealed("index.json").remove(0),
            sites: sealed("sites.json").remove(0),
            status: json("status.json"),
            manifest: json("qera_manifest.json"),
            adapter: json("adapter_config.json"),
            statistics: TensorSeed::of(&read("statistics.safetensors")),
            progress: TensorSeed::of(&read("progress.safetensors")),
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

    /// The parts of a sound file.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut header = header(bytes);
        let record = header["__metadata__"]["qera.site"].take();
        Self {
            record: serde_json::from_str(record.as_str().unwrap()).unwrap(),
            data: bytes[8 + length(bytes)..].to_vec(),
            header,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::simulated::{Disk, Trouble};
    use crate::trials::small_run::{OPTIONS, folder, run_quietly, settings};
    use crate::trials::turns::Turns;

    /// A value without what differs from CPU to CPU and from run to run: its numbers and texts.
    fn form(value: &Value) -> Value {
        match value {
            Value::Number(_) => 0.into(),
            Value::String(_) => "".into(),
            Value::Array(items) => items.iter().map(form).collect(),
            Value::Object(map) => map
                .iter()
                .map(|(key, of)| (key.clone(), form(of)))
                .collect(),
            Value::Bool(_) | Value::Null => value.clone(),
        }
    }

    fn forms(seeds: &Seeds) -> Vec<Value> {
        let of_tensors =
            |of: &TensorSeed| [form(&of.header), form(&of.record), of.data.len().into()];
        let of_files = [
            &seeds.index,
            &seeds.sites,
            &seeds.status,
            &seeds.manifest,
            &seeds.adapter,
        ];
        let lines = seeds.journal.iter().chain(&seeds.headers);
        let values = of_files.into_iter().chain(lines).map(form);
        let tensors = [&seeds.statistics, &seeds.progress].into_iter();
        values.chain(tensors.flat_map(of_tensors)).collect()
    }

    /// Where the daemon writes other files by now, `QERA_WRITE_SEEDS=1` takes them: then every
    /// number is another input.
    #[test]
    fn the_files_are_what_a_run_leaves_today() {
        let disk = Disk::mount("seeds", folder(&[0, 1]), Trouble::None);
        {
            let _turns = Turns::begin(0);
            let more = format!("{OPTIONS}once = true\nrank = 2");
            let settings = settings(disk.root(), &more).unwrap();
            run_quietly(&settings, Arc::default(), Arc::default()).unwrap();
        }
        let image = disk.image();
        Disk::unmount("seeds");
        let of_today = |end: &str| {
            let mut files = FILES.iter();
            let file = files.find(|of| of.path.ends_with(end)).unwrap();
            image.get(file.path).unwrap()
        };
        if std::env::var_os("QERA_WRITE_SEEDS").is_some() {
            let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/trials/fuzz/seeds");
            for file in &FILES {
                let name = Path::new(file.path).file_name().unwrap();
                std::fs::write(here.join(name), of_today(file.path)).unwrap();
            }
            return;
        }
        let (kept, today) = (forms(&SEEDS), forms(&Seeds::of(&of_today)));
        for (kept, today) in kept.into_iter().zip(today) {
            assert_eq!(
                kept, today,
                "QERA_WRITE_SEEDS=1 writes src/trials/fuzz/seeds anew"
            );
        }
    }
}
