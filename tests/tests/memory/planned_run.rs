//! A checkpoint, its shards, how the daemon runs on them, and how much memory that takes.

use core::time::Duration;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use qera_core::pseudo_random::SplitMix64;
use qera_tests::daemon::TestDaemon;
use qera_tests::live::send_signal;
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use serde_json::{Value, json};

use super::BINARY;

/// A run whose memory is planned and measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlannedRun {
    pub(crate) name: &'static str,
    pub(crate) layers: &'static [LayerShape],
    pub(crate) inputs: &'static [ShardInput],
    pub(crate) shards: usize,
    pub(crate) rows: usize,
    pub(crate) live: bool,
    pub(crate) options: &'static [&'static str],
}

/// A layer of the checkpoint; those of one input share a site.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerShape {
    pub(crate) module: &'static str,
    pub(crate) out_features: usize,
    pub(crate) in_features: usize,
}

/// A tensor of each shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShardInput {
    pub(crate) module: &'static str,
    pub(crate) in_features: usize,
}

/// Bytes of a run's memory.
pub(crate) struct MeasuredPeak {
    pub(crate) planned: u64,
    pub(crate) seen: u64,
}

/// Small values of pseudo-random sign and size, as bf16.
fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut sequence = SplitMix64::new(seed);
    let mut bytes = Vec::with_capacity(2 * count + 8);
    while bytes.len() < 2 * count {
        for lane in sequence.next_bits().to_le_bytes().chunks_exact(2) {
            // Sign, an exponent of 120 to 127, the mantissa.
            let high = (lane[1] & 0x80) | 0x3c | (lane[1] & 0x03);
            bytes.extend([lane[0], high]);
        }
    }
    bytes.truncate(2 * count);
    bytes
}

impl PlannedRun {
    /// Writes the checkpoint and the shards.
    pub(crate) fn files(&self) -> TestDaemon {
        let daemon = TestDaemon::with_watched_folder(BINARY);
        let checkpoint = daemon.path().join("checkpoint");
        std::fs::create_dir(&checkpoint).unwrap();
        let weights: Vec<_> = self
            .layers
            .iter()
            .zip(1..)
            .map(|(layer, seed)| {
                let (n, m) = (layer.out_features, layer.in_features);
                let name = format!("{}.weight", layer.module);
                TensorToWrite::new(&name, "BF16", &[n, m], noise(n * m, seed))
            })
            .collect();
        write_safetensors(&checkpoint.join("model.safetensors"), &weights, &[]);
        std::fs::write(checkpoint.join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
        for shard in 0..self.shards {
            let rows: Vec<_> = self
                .inputs
                .iter()
                .zip(100 * (shard as u64 + 1)..)
                .map(|(input, seed)| {
                    let (rows, m) = (self.rows, input.in_features);
                    TensorToWrite::new(input.module, "BF16", &[rows, m], noise(rows * m, seed))
                })
                .collect();
            let path = daemon.watched().join(format!("{shard:04}.safetensors"));
            write_safetensors(&path, &rows, &[]);
        }
        daemon
    }

    /// Lets each shard say that it has so many rows, and be as long: a hole in the file.
    pub(crate) fn announce(&self, daemon: &TestDaemon, rows: usize) {
        let mut header = serde_json::Map::new();
        let mut end = 0;
        for input in self.inputs {
            let start = end;
            end += 2 * rows * input.in_features;
            let shape = [rows, input.in_features];
            let claim = json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]});
            header.insert(input.module.into(), claim);
        }
        let header = Value::Object(header).to_string();
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        for shard in 0..self.shards {
            let path = daemon.watched().join(format!("{shard:04}.safetensors"));
            std::fs::write(&path, &bytes).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_len((bytes.len() + end) as u64).unwrap();
        }
    }

    /// The run's options and more.
    pub(crate) fn arguments<'a>(&self, more: &[&'a str]) -> Vec<&'a str> {
        let input = "--watch activations --checkpoint checkpoint --log-format json";
        let input = input.split(' ').chain(self.options.iter().copied());
        input.chain(more.iter().copied()).collect()
    }

    /// The plan that `plan` prints for the run.
    pub(crate) fn plan(&self, daemon: &TestDaemon, more: &[&str]) -> Value {
        let plan = daemon.run(&self.arguments(&[more, &["plan"]].concat()));
        assert_eq!(plan.code, 0, "{}", plan.log);
        serde_json::from_str(&plan.output).unwrap()
    }

    /// The planned peak and the one that was seen.
    pub(crate) fn measure(&self) -> MeasuredPeak {
        let daemon = self.files();
        let once = ["--once"];
        let live = ["--idle-publish", "1"];
        let more: &[&str] = if self.live { &live } else { &once };
        let plan = self.plan(&daemon, more);
        let mut command = daemon.command(&self.arguments(more));
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let manifest = daemon.path().join("qera-out/current/qera_manifest.json");
        let mut asked = false;
        let seen = peak_until_end(&mut child, |child| {
            if self.live && !asked && is_drained(&manifest) {
                asked = true;
                send_signal(child, "TERM");
            }
        });
        assert_eq!(child.wait().unwrap().code(), Some(0), "{}", self.name);
        MeasuredPeak {
            planned: plan["total_bytes"].as_u64().unwrap(),
            seen,
        }
    }
}

/// Whether the current generation is the last word on every shard.
fn is_drained(manifest: &PathBuf) -> bool {
    let text = std::fs::read_to_string(manifest).unwrap_or_default();
    let manifest: Value = serde_json::from_str(&text).unwrap_or_default();
    manifest["inputs"]["drained"] == true
}

/// The largest `RssAnon` until the process ends; `each` is called now and then.
fn peak_until_end(child: &mut Child, mut each: impl FnMut(&Child)) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    for round in 0_u64.. {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        let now = kib.unwrap_or(0_u64) << 10;
        peak = peak.max(now);
        if child.try_wait().unwrap().is_some() {
            break;
        }
        if round.is_multiple_of(100) {
            each(child);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    peak
}
