//! The committed fixture is what its list of hashes says, within the sizes promised, and what its
//! model computes.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::collections::HashSet;
use std::process::Command;

use qera_tests::fixture::{
    FixtureModel, calibration_tokens, evaluation_tokens, fixture_shards, fixtures, write_shard,
};
use qera_tests::reference::from_bf16;
use safetensors::SafeTensors;

#[test]
fn hashes_and_sizes_hold() {
    let folder = fixtures();
    let checked = Command::new("sha256sum")
        .args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stdout)
    );
    let size = |part: &str| -> u64 {
        let files = std::fs::read_dir(folder.join(part)).unwrap();
        files
            .map(|f| f.unwrap().metadata().unwrap().len())
            .inspect(|bytes| assert!(*bytes <= 4 << 20, "{part}"))
            .sum()
    };
    assert!(size("model") <= 6_000_000);
    assert!(size("activations") <= 24_000_000);
    let listed = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    for part in ["model", "activations"] {
        for file in std::fs::read_dir(folder.join(part)).unwrap() {
            let name = format!("{part}/{}", file.unwrap().file_name().to_string_lossy());
            assert!(
                listed.lines().any(|l| l.ends_with(&name)),
                "{name} has no hash"
            );
        }
    }
}

/// The differences between the recorded rows and those computed here.
struct RowDifferences {
    /// Relative, in the Frobenius norm.
    frobenius: f64,
    /// The largest of an element, in steps of bf16 at its size, or at 1/64 of the root mean square
    /// where it is smaller.
    steps: f64,
}

fn differences(recorded: &[f32], computed: &[f32]) -> RowDifferences {
    let power = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let whole = power(&mut recorded.iter().map(|v| f64::from(*v)));
    let floor = (whole / recorded.len() as f64).sqrt() / 64.0;
    let pairs = || {
        let wide = |(a, b): (&f32, &f32)| (f64::from(*a), f64::from(*b));
        recorded.iter().zip(computed).map(wide)
    };
    let frobenius = (power(&mut pairs().map(|(a, b)| a - b)) / whole).sqrt();
    let steps = pairs()
        .map(|(a, b)| (a - b).abs() / (a.abs().max(floor).log2().floor() - 7.0).exp2())
        .fold(0.0, f64::max);
    RowDifferences { frobenius, steps }
}

/// Transformers recorded the shards; the model of the tests writes the same files from the
/// committed tokens. f32 sums in another order turn the rounding of few elements, by one step (1e-4
/// of a tensor at most); a norm without its epsilon, the smallest of the wrong formulas tried,
/// moves elements by 6 steps.
#[test]
fn the_model_computes_the_committed_shards() {
    let (model, tokens) = (FixtureModel::load(), calibration_tokens());
    let written = tempfile::tempdir().unwrap();
    for (recorded, sequences) in fixture_shards().iter().zip(tokens.chunks(4)) {
        let name = recorded.file_name().unwrap();
        let computed = written.path().join(name);
        write_shard(&computed, &model, sequences);
        check_shard(
            &name.to_string_lossy(),
            &std::fs::read(recorded).unwrap(),
            &std::fs::read(computed).unwrap(),
        );
    }
    let left: HashSet<_> = std::fs::read_dir(written.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        left.len(),
        8,
        "something was left beside the shards: {left:?}"
    );
}

/// Same metadata, keys, types and shapes; values as near as f32 sums in another order are.
fn check_shard(name: &str, recorded: &[u8], computed: &[u8]) {
    let metadata = |bytes| {
        let metadata = SafeTensors::read_metadata(bytes).unwrap().1;
        metadata.metadata().clone()
    };
    assert_eq!(metadata(recorded), metadata(computed), "{name}");
    let recorded = SafeTensors::deserialize(recorded).unwrap();
    let computed = SafeTensors::deserialize(computed).unwrap();
    assert_eq!(recorded.len(), 16, "{name}");
    assert_eq!(recorded.len(), computed.len(), "{name}");
    for (key, expected) in recorded.tensors() {
        let found = computed.tensor(&key).unwrap();
        assert_eq!(found.dtype(), expected.dtype(), "{name} {key}");
        assert_eq!(found.shape(), expected.shape(), "{name} {key}");
        let RowDifferences { frobenius, steps } =
            differences(&from_bf16(expected.data()), &from_bf16(found.data()));
        assert!(
            frobenius < 1e-3 && steps <= 2.0,
            "{name} {key}: {frobenius:.2e} in the Frobenius norm, an element {steps:.2} steps away"
        );
    }
}

#[test]
fn token_files_hold_distinct_sequences() {
    let (calibration, evaluation) = (calibration_tokens(), evaluation_tokens());
    assert_eq!((calibration.len(), evaluation.len()), (1600, 64));
    let mut seen = HashSet::new();
    for sequence in calibration.iter().chain(&evaluation) {
        assert_eq!(sequence.len(), 128);
        assert!(sequence.iter().all(|token| *token < 1024));
        assert!(seen.insert(sequence), "a sequence that occurs twice");
    }
}
