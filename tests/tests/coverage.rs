//! The interval of the held-out error covers: on a long real stream, the true error of a frozen
//! correction lies in its 95 % interval in 90 to 99 % of windows.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::fs;

use qera_daemon::{Aside, ColumnMajor, StoredRows, WrittenCorrection, score};
use qera_tests::adapter::{Adapter, LoraFactors, output_error};
use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::fixture::{
    BLOCKS, FixtureModel, ModuleInput, SITES_OF_A_BLOCK, calibration_tokens, fixture_run, fixtures,
};
use qera_tests::quantization::quantization_error;
use qera_tests::reference::from_bf16;
use qera_tests::tier;
use safetensors::SafeTensors;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
/// Blocks of one window.
const WINDOW: usize = 12;
/// Sequences whose shards the correction was made from.
const SEEN: usize = 32;

/// A layer whose correction is frozen.
struct FrozenLayer {
    in_features: usize,
    error: Vec<f32>,
    factors: LoraFactors,
    aside: Aside,
    /// The intervals that were reported for each window.
    intervals: Vec<ScoredWindow>,
    /// The sum over windows of the mean error of all their rows, by independent code.
    sum: f64,
}

struct ScoredWindow {
    error: f64,
    half_width: f64,
}

impl FrozenLayer {
    fn new(input: &ModuleInput, adapter: &Adapter, checkpoint: &SafeTensors<'_>) -> Self {
        let weight = checkpoint.tensor(&format!("{}.weight", input.module));
        let weight = from_bf16(weight.unwrap().data());
        Self {
            in_features: input.in_features,
            error: quantization_error(&weight, input.in_features, 3, 32),
            factors: adapter.factors(&input.module),
            aside: Aside::new(input.in_features, 1.0 / 16.0),
            intervals: Vec::new(),
            sum: 0.0,
        }
    }

    /// Scores the sequences of one window, each of them a block.
    fn score(&mut self, sequences: &[&[f32]]) {
        let m = self.in_features;
        for rows in sequences {
            self.aside.offer(StoredRows::floats(rows, m));
        }
        let correction = WrittenCorrection {
            rank: self.factors.rank,
            lora_a: self.factors.lora_a.clone(),
            lora_b: self.factors.lora_b.clone(),
        };
        let blocks = self.aside.take(false);
        let evidence = score(0, &blocks, ColumnMajor::new(&self.error, m), &[correction]).unwrap();
        assert_eq!(evidence.blocks, WINDOW as u64);
        self.intervals.push(ScoredWindow {
            error: evidence.error,
            half_width: evidence.half_width.unwrap(),
        });
        self.sum += output_error(&sequences.concat(), &self.error, m, Some(&self.factors));
    }

    /// Windows whose interval holds the mean error of every row of the stream.
    fn covered(&self) -> usize {
        let truth = self.sum / self.intervals.len() as f64;
        let holds = |window: &&ScoredWindow| (window.error - truth).abs() <= window.half_width;
        self.intervals.iter().filter(holds).count()
    }
}

#[test]
fn intervals_cover_the_true_error() {
    // The correction is frozen after the committed shards, the first sequences of the stream.
    let daemon = TestDaemon::new(BINARY);
    let once = fixture_run(&fixtures().join("activations"), BLOCKS, &["--once"]);
    expect(&daemon.run(&once), 0, &[]);
    let adapter = daemon.adapter("qera-out");
    let bytes = fs::read(fixtures().join("model/model.safetensors")).unwrap();
    let checkpoint = SafeTensors::deserialize(&bytes).unwrap();

    let (model, tokens) = (FixtureModel::load(), calibration_tokens());
    // All of the stream is newer than the correction.
    let sequences = tier::cases(360, 1200);
    let mut layers: Vec<FrozenLayer> = Vec::new();
    for window in tokens[SEEN..SEEN + sequences].chunks_exact(WINDOW) {
        let inputs: Vec<_> = window.iter().map(|tokens| model.inputs(tokens)).collect();
        if layers.is_empty() {
            let new = |input| FrozenLayer::new(input, &adapter, &checkpoint);
            layers = inputs[0].iter().map(new).collect();
        }
        for (index, layer) in layers.iter_mut().enumerate() {
            let rows: Vec<&[f32]> = inputs.iter().map(|s| &s[index].rows[..]).collect();
            layer.score(&rows);
        }
    }
    let windows: usize = layers.iter().map(|layer| layer.intervals.len()).sum();
    assert_eq!(windows, BLOCKS * SITES_OF_A_BLOCK * sequences / WINDOW);
    let covered: usize = layers.iter().map(FrozenLayer::covered).sum();
    let share = covered as f64 / windows as f64;
    println!("{covered} of {windows} intervals hold the true error: {share:.3}");
    assert!((0.90..=0.99).contains(&share), "{covered} of {windows}");
}
