//! A checkpoint, its shards, how the daemon runs on them, and how much memory that takes.
//!
//! `RssAnon` is read every millisecond while the daemon runs. What is seen is no more than the
//! peak, so that a plan that is too small cannot pass by it; peaks that last less than that are not
//! what runs out of memory. The checkpoint's and the shards' pages are the file cache's, which the
//! system takes back.
#![allow(clippy::unwrap_used, reason = "tests only")]

use core::time::Duration;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use qera_core::pseudo_random::SplitMix64;
use serde_json::{Value, json};

use crate::daemon::{TestDaemon, run_to_end};
use crate::live::send_signal;
use crate::safetensors_file::{TensorToWrite, write_safetensors};

/// A run whose memory is planned and measured.
#[derive(Debug, Clone, Copy)]
pub struct PlannedRun {
    /// `env!("CARGO_BIN_EXE_qera-daemon-under-test")`.
    pub binary: &'static str,
    /// What it is called in messages.
    pub name: &'static str,
    /// The checkpoint's.
    pub layers: &'static [LayerShape],
    /// Of each shard.
    pub inputs: &'static [ShardInput],
    /// How many there are.
    pub shards: usize,
    /// Rows of each.
    pub rows: usize,
    /// Whether it runs until its folder is drained, rather than `--once`.
    pub live: bool,
    /// Further options.
    pub options: &'static [&'static str],
}

/// A layer of the checkpoint; those of one input share a site.
#[derive(Debug, Clone, Copy)]
pub struct LayerShape {
    /// Its name.
    pub module: &'static str,
    /// Rows of its weight.
    pub out_features: usize,
    /// Columns of its weight.
    pub in_features: usize,
}

/// A tensor of each shard.
#[derive(Debug, Clone, Copy)]
pub struct ShardInput {
    /// The layer that it is the input of.
    pub module: &'static str,
    /// Numbers of a row.
    pub in_features: usize,
}

/// A run's memory.
#[derive(Debug)]
pub struct MeasuredPeak {
    /// The plan, as JSON.
    pub plan: Value,
    /// Its planned peak, in bytes.
    pub planned: u64,
    /// The peak that was seen, in bytes.
    pub seen: u64,
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
    ///
    /// # Panics
    /// When they cannot be written.
    #[must_use]
    pub fn files(&self) -> TestDaemon {
        let daemon = TestDaemon::with_watched_folder(self.binary);
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
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn announce(&self, daemon: &TestDaemon, rows: usize) {
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
    #[must_use]
    pub fn arguments<'a>(&self, more: &[&'a str]) -> Vec<&'a str> {
        let input = "--watch activations --checkpoint checkpoint --log-format json";
        let input = input.split(' ').chain(self.options.iter().copied());
        input.chain(more.iter().copied()).collect()
    }

    /// The plan that `plan` prints for the run.
    ///
    /// # Panics
    /// When it prints none.
    #[must_use]
    pub fn plan(&self, daemon: &TestDaemon, more: &[&str]) -> Value {
        self.plan_beside(daemon, more, |_| {})
    }

    fn plan_beside(
        &self,
        daemon: &TestDaemon,
        more: &[&str],
        prepare: impl Fn(&mut Command),
    ) -> Value {
        let mut command = daemon.command(&self.arguments(&[more, &["plan"]].concat()));
        prepare(&mut command);
        let plan = run_to_end(command);
        assert_eq!(plan.code, 0, "{}", plan.log);
        serde_json::from_str(&plan.output).unwrap()
    }

    /// The planned peak and the one that was seen.
    ///
    /// # Panics
    /// When the run does not end well.
    #[must_use]
    pub fn measure(&self) -> MeasuredPeak {
        self.measure_beside(|_| {})
    }

    /// The same; `prepare` sets what the process runs beside.
    ///
    /// # Panics
    /// When the run does not end well.
    #[must_use]
    pub fn measure_beside(&self, prepare: impl Fn(&mut Command)) -> MeasuredPeak {
        let daemon = self.files();
        let once = ["--once"];
        let live = ["--idle-publish", "1"];
        let more: &[&str] = if self.live { &live } else { &once };
        let plan = self.plan_beside(&daemon, more, &prepare);
        let mut command = daemon.command(&self.arguments(more));
        prepare(&mut command);
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
            plan,
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
