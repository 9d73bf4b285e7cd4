//! A layer whose correction would do more harm than good goes out uncorrected, by name.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};

use super::BINARY;

/// [32, 192].
const HARMED: &str = "model.layers.0.mlp.down_proj";
/// [32, 192], on a site of its own.
const SOUND: &str = "model.layers.0.self_attn.q_proj";
const M: usize = 192;
const N: usize = 32;
/// Rows of a shard.
const ROWS: usize = 128;
const SHARDS: usize = 4;
/// Rows of this size have sums of products near the smallest f32 number: R is so coarse that it is
/// not that of any rows, and what is solved from it does harm.
const TINY: f32 = 1.1e-25;

/// Sums of four evenly distributed numbers, of mean 0, the same on every machine.
struct Noise(u64);

impl Noise {
    fn even(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1_u32 << 24) as f32 - 0.5
    }

    fn values(&mut self, count: usize) -> Vec<f32> {
        let value = |_| (0..4).map(|_| self.even()).sum::<f32>() * 1.7;
        (0..count).map(value).collect()
    }
}

/// Rows of channels that correlate as those of a model do, by a power law. Every second channel is
/// thirty times as large.
struct Rows {
    noise: Noise,
    /// [M, M].
    mixed: Vec<f32>,
}

impl Rows {
    fn new() -> Self {
        let mut noise = Noise(7);
        let mut mixed = noise.values(M * M);
        for (i, of_direction) in mixed.chunks_exact_mut(M).enumerate() {
            let share = (i as f32 + 1.0).powf(-0.7);
            let large = |j| if j % 2 == 0 { 30.0 } else { 1.0 };
            let values = of_direction.iter_mut().enumerate();
            values.for_each(|(j, x)| *x *= share * large(j));
        }
        Self { noise, mixed }
    }

    fn of(&mut self, name: &str, size: f32) -> TensorToWrite {
        let mut values = vec![0.0; ROWS * M];
        for row in values.chunks_exact_mut(M) {
            let shares = self.noise.values(M);
            for (share, of_direction) in shares.iter().zip(self.mixed.chunks_exact(M)) {
                let sums = row.iter_mut().zip(of_direction);
                sums.for_each(|(x, of_channel)| *x += size * share * of_channel);
            }
        }
        TensorToWrite::f32(name, &[ROWS, M], &values)
    }
}

fn write_shards(daemon: &TestDaemon, name: &str, size: f32) {
    let mut rows = Rows::new();
    for shard in 0..SHARDS {
        let tensors = [rows.of(HARMED, size), rows.of(SOUND, 1.0)];
        let path = daemon.watched().join(format!("{name}{shard}.safetensors"));
        write_safetensors(&path, &tensors, &[]);
    }
}

fn daemon_with_harm() -> TestDaemon {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let checkpoint = daemon.path().join("checkpoint");
    fs::create_dir(&checkpoint).unwrap();
    let mut noise = Noise(1);
    let tensors = [HARMED, SOUND]
        .map(|name| TensorToWrite::f32(&format!("{name}.weight"), &[N, M], &noise.values(N * M)));
    write_safetensors(&checkpoint.join("model.safetensors"), &tensors, &[]);
    write_shards(&daemon, "tiny", TINY);
    daemon
}

const ONCE: [&str; 9] = [
    "--once",
    "--watch",
    "activations",
    "--checkpoint",
    "checkpoint",
    "--rank",
    "4",
    "--quantizer",
    "mxint3",
];

const HARM: &str = "warning: model.layers.0.mlp.down_proj: its correction would raise the output \
    error on the rows seen from ";

#[test]
fn it_goes_out_uncorrected_by_name() {
    let daemon = daemon_with_harm();
    let run = daemon.run(&ONCE);
    let said = [
        HARM,
        "; it goes out uncorrected",
        "1 layers corrected",
        "published generation 1",
    ];
    expect(&run, 3, &said);
    let adapter = daemon.adapter("qera-out");
    assert_eq!(adapter.layer(HARMED)["status"], "failed");
    assert_eq!(adapter.layer(SOUND)["status"], "solved");
    let targets = adapter.config["target_modules"].as_array().unwrap();
    assert!(!targets.contains(&"down_proj".into()), "{targets:?}");
    let status = daemon.status();
    let layers = status["layers"].as_array().unwrap();
    let of_harmed = layers.iter().find(|of| of["name"] == HARMED).unwrap();
    assert_eq!(of_harmed["status"], "failed");
    let verify = daemon.run(&["verify", "--adapter", "qera-out/current"]);
    assert_eq!(verify.code, 0, "{}", verify.output);
}

#[test]
fn rows_that_tell_more_correct_it_later() {
    let daemon = daemon_with_harm();
    expect(&daemon.run(&ONCE), 3, &[HARM]);
    write_shards(&daemon, "usual", 1.0);
    expect(&daemon.run(&ONCE), 0, &["2 layers corrected"]);
    assert_eq!(daemon.adapter("qera-out").layer(HARMED)["status"], "solved");
}
