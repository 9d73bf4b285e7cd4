//! A checkpoint of three small layers on two sites, shards for it, and runs of the daemon on them
//! in this process.

use core::sync::atomic::AtomicBool;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};

use crate::disk::simulated::Image;
use crate::error::Fatal;
use crate::exit::Exit;
use crate::observe::reporter::Reporter;
use crate::run::signals::Signals;
use crate::run::{run, run_heeding};
use crate::settings::Settings;
use crate::settings::log_format::LogFormat;

/// The layers, [out_features, in_features] each; the first two have one input.
pub(crate) const LAYERS: [(&str, [usize; 2]); 3] = [
    ("model.layers.0.self_attn.q_proj", [6, 8]),
    ("model.layers.0.self_attn.k_proj", [4, 8]),
    ("model.layers.0.mlp.down_proj", [8, 12]),
];
/// The configuration beside it.
pub(crate) const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": false}"#;
/// Options of its runs.
pub(crate) const OPTIONS: &str = "block-size = 4\n";
/// Rows of a shard.
pub(crate) const ROWS: usize = 70;

fn sine_values(count: usize, phase: f32) -> Vec<u8> {
    let value = |i: usize| (i as f32 * 0.7 + phase).sin() * (1.0 + (i % 5) as f32);
    (0..count).flat_map(|i| value(i).to_le_bytes()).collect()
}

fn file(tensors: &[(&str, [usize; 2])], phase: f32) -> Vec<u8> {
    let bytes: Vec<_> = tensors
        .iter()
        .map(|(_, [rows, columns])| sine_values(rows * columns, phase))
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap();
        ((*name).to_owned(), view)
    });
    serialize(views, None).unwrap()
}

/// The bytes of the checkpoint.
pub(crate) fn checkpoint() -> Vec<u8> {
    let names = LAYERS.map(|(name, shape)| (format!("{name}.weight"), shape));
    let tensors: Vec<_> = names
        .iter()
        .map(|(name, shape)| (&name[..], *shape))
        .collect();
    file(&tensors, 0.0)
}

/// The bytes of a shard with rows of both sites; another number is another text.
pub(crate) fn shard(number: usize) -> Vec<u8> {
    let tensors = [(LAYERS[0].0, [ROWS, 8]), (LAYERS[2].0, [ROWS, 12])];
    file(&tensors, 1.0 + number as f32)
}

/// A disk with a checkpoint and shards, in the order of their names.
pub(crate) fn image_of(
    checkpoint: &[u8],
    config: &[u8],
    shards: impl Iterator<Item = Vec<u8>>,
) -> Image {
    let mut image = Image::default();
    image.put("checkpoint/model.safetensors", checkpoint);
    image.put("checkpoint/config.json", config);
    image.put("activations/.keep", b"");
    for (place, shard) in shards.enumerate() {
        image.put(&format!("activations/{place:03}.safetensors"), &shard);
    }
    image
}

/// That of the small run with these shards.
pub(crate) fn folder(shards: &[usize]) -> Image {
    let shards = shards.iter().map(|&number| shard(number));
    image_of(&checkpoint(), CONFIG.as_bytes(), shards)
}

/// Settings of a run in a folder that holds `checkpoint` and `activations`; more are TOML. They ask
/// what lies in the folder, which a disk that fails does not say.
pub(crate) fn settings(folder: &Path, more: &str) -> Result<Settings, Fatal> {
    let in_folder = |name: &str| folder.join(name).display().to_string();
    let text = format!(
        "checkpoint = {:?}\nwatch = {:?}\nout = {:?}\nthreads = 1\n{more}",
        in_folder("checkpoint"),
        in_folder("activations"),
        in_folder("out"),
    );
    Settings::from_toml(&text)
}

/// One run.
pub(crate) fn run_once(folder: &Path, more: &str) -> Result<Exit, Fatal> {
    let settings = settings(folder, &format!("{OPTIONS}once = true\nrank = 2\n{more}"))?;
    run(&settings, &mut Reporter::new(LogFormat::Text))
}

/// A run with these settings, until it ends or the flag is set; what it says is kept.
pub(crate) fn run_quietly(
    settings: &Settings,
    stopping: Arc<AtomicBool>,
    kept: Arc<Mutex<String>>,
) -> Result<Exit, Fatal> {
    let watch = settings.source.watch.clone().unwrap();
    let signals = Signals::set_by(stopping);
    run_heeding(settings, &watch, &signals, &mut Reporter::keeping(kept))
}

/// A folder with the checkpoint and some shards, until it is dropped.
#[derive(Debug)]
pub(crate) struct RealFolder(pub(crate) PathBuf);

impl RealFolder {
    /// Makes it.
    pub(crate) fn with_shards(name: &str, shards: usize) -> Self {
        let name = format!("qera-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        for inner in ["checkpoint", "activations"] {
            std::fs::create_dir_all(folder.join(inner)).unwrap();
        }
        let write = |path: &str, bytes: Vec<u8>| std::fs::write(folder.join(path), bytes).unwrap();
        write("checkpoint/model.safetensors", checkpoint());
        write("checkpoint/config.json", CONFIG.into());
        for number in 0..shards {
            let path = format!("activations/shard-{number}.safetensors");
            write(&path, shard(number));
        }
        Self(folder)
    }

    /// The bytes of a file below it.
    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.0.join(path)).unwrap()
    }
}

impl Drop for RealFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
