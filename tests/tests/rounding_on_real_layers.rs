//! Rounding that knows the adapter, on real layers, judged on rows that nothing has seen: f beside
//! that of nearest rounding with QERA-exact, at the same bits and rank.
//!
//! The base and the adapter are read as they were published; W~ and f are this file's own.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use half::bf16;
use qera_tests::adapter::{LoraFactors, output_error};
use qera_tests::daemon::TestDaemon;
use qera_tests::reference::{LAYERS, ReferenceLayer, reference_folder};
use safetensors::{Dtype, SafeTensors};

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
/// Rows from here on are judged; those before may be solved from.
const JUDGED_FROM: usize = 3072;

/// A grid, and the options that ask for it.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    options: &'static [&'static str],
    /// The largest allowed f as a share of nearest rounding's with exact, for q_proj and gate_proj.
    at_most: [f64; 2],
}

/// Without a share for the base: the bounds.
const ALONE: [Case; 3] = [
    Case {
        name: "mxint3/32",
        options: &["--quantizer", "mxint3"],
        at_most: [0.35, 0.53],
    },
    Case {
        name: "mxint2/16",
        options: &["--quantizer", "mxint2", "--block-size", "16"],
        at_most: [0.40, 0.66],
    },
    Case {
        name: "mxint4/32",
        options: &["--quantizer", "mxint4"],
        at_most: [0.38, 0.56],
    },
];

/// What a run published for its one layer.
struct Published {
    /// W~, row-major.
    quantized: Vec<f32>,
    factors: LoraFactors,
}

/// f on the judged rows, of the base alone and with the adapter.
#[derive(Debug, Clone, Copy)]
struct Errors {
    alone: f64,
    corrected: f64,
}

impl Published {
    fn of(daemon: &TestDaemon, layer: &ReferenceLayer, out: &str, options: &[&str]) -> Self {
        let input = "--once --watch activations --checkpoint checkpoint --rank 32 --emit-base";
        let mut arguments: Vec<&str> = input.split(' ').collect();
        arguments.extend(["--out", out]);
        arguments.extend(options);
        let run = daemon.run(&arguments);
        assert_eq!(run.code, 0, "{}", run.log);
        let bytes = std::fs::read(daemon.path().join(out).join("base/model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = file.tensor(&format!("{}.weight", layer.module)).unwrap();
        let of_four = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let quantized = match tensor.dtype() {
            Dtype::F32 => tensor.data().chunks_exact(4).map(of_four).collect(),
            other => {
                assert_eq!(other, Dtype::BF16);
                let of_two = |b: &[u8]| bf16::from_le_bytes([b[0], b[1]]).to_f32();
                tensor.data().chunks_exact(2).map(of_two).collect()
            }
        };
        Self {
            quantized,
            factors: daemon.adapter(out).factors(&layer.module),
        }
    }

    fn errors(&self, layer: &ReferenceLayer) -> Errors {
        let m = layer.in_features;
        let rows = &layer.rows[JUDGED_FROM * m..];
        let error: Vec<f32> = layer
            .weight
            .iter()
            .zip(&self.quantized)
            .map(|(w, q)| w - q)
            .collect();
        Errors {
            alone: output_error(rows, &error, m, None),
            corrected: output_error(rows, &error, m, Some(&self.factors)),
        }
    }
}

/// f beside nearest rounding's, base alone and corrected, on the same grid.
fn beside_nearest(
    daemon: &TestDaemon,
    layer: &ReferenceLayer,
    grid: &[&str],
    rounding: &[&str],
) -> Errors {
    let errors = |out: &str, more: &[&str]| {
        Published::of(daemon, layer, out, &[grid, more].concat()).errors(layer)
    };
    let out = |name: &str| format!("{name}-{}", [grid, rounding].concat().concat());
    let nearest = errors(&out("nearest"), &["--shrinkage", "0"]);
    let rounded = errors(&out("rounded"), rounding);
    Errors {
        alone: rounded.alone / nearest.alone,
        corrected: rounded.corrected / nearest.corrected,
    }
}

const PROJECTED: &[&str] = &["--rounding", "projected"];

#[test]
fn a_third_to_a_half_of_the_error_is_left() {
    let Some(folder) = reference_folder("a_third_to_a_half_of_the_error_is_left") else {
        return;
    };
    for (index, name) in LAYERS.into_iter().enumerate() {
        let layer = ReferenceLayer::load(&folder, name);
        let daemon = TestDaemon::new(BINARY);
        layer.write_input(daemon.path(), JUDGED_FROM, 12);
        for case in ALONE {
            let options = [PROJECTED, &["--base-share", "0"]].concat();
            let Errors { corrected, .. } = beside_nearest(&daemon, &layer, case.options, &options);
            let most = case.at_most[index];
            assert!(
                corrected <= most,
                "{name} {}: {corrected} {most}",
                case.name
            );
        }
        let both = beside_nearest(&daemon, &layer, ALONE[0].options, PROJECTED);
        let most = [0.42, 0.54][index];
        assert!(both.corrected <= most, "{name}: {both:?} {most}");
        assert!(both.alone <= 1.5, "{name}: {both:?}");
    }
}

/// 512 rows in four sequences, of which one judges: never worse than nearest.
#[test]
fn few_rows_are_better_than_nearest() {
    let Some(folder) = reference_folder("few_rows_are_better_than_nearest") else {
        return;
    };
    for name in LAYERS {
        let layer = ReferenceLayer::load(&folder, name);
        let daemon = TestDaemon::new(BINARY);
        layer.write_sequences(daemon.path(), 4, 128);
        for case in ALONE {
            for share in ["0", "0.01"] {
                let options = [PROJECTED, &["--base-share", share]].concat();
                let found = beside_nearest(&daemon, &layer, case.options, &options);
                assert!(found.corrected < 1.0, "{name} {}: {found:?}", case.name);
            }
        }
    }
}

/// Feedback under R makes the base better by itself.
#[test]
fn feedback_makes_a_better_base() {
    let Some(folder) = reference_folder("feedback_makes_a_better_base") else {
        return;
    };
    for name in LAYERS {
        let layer = ReferenceLayer::load(&folder, name);
        let daemon = TestDaemon::new(BINARY);
        layer.write_input(daemon.path(), JUDGED_FROM, 12);
        let feedback = &["--rounding", "feedback"];
        let found = beside_nearest(&daemon, &layer, ALONE[0].options, feedback);
        assert!(
            found.alone < 0.7 && found.corrected < 0.95,
            "{name}: {found:?}"
        );
    }
}

/// The container that 4-bit MXINT pays for anyway: the same bytes, an f16 scale, 16 levels.
#[test]
fn q4_0_leaves_a_fifth_of_mxint4() {
    let Some(folder) = reference_folder("q4_0_leaves_a_fifth_of_mxint4") else {
        return;
    };
    for (name, most) in LAYERS.into_iter().zip([0.25, 0.28]) {
        let layer = ReferenceLayer::load(&folder, name);
        let daemon = TestDaemon::new(BINARY);
        layer.write_input(daemon.path(), JUDGED_FROM, 12);
        let errors = |out: &str, options: &[&str]| {
            Published::of(&daemon, &layer, out, options).errors(&layer)
        };
        let mxint4 = errors("mxint4", &["--quantizer", "mxint4", "--shrinkage", "0"]);
        let options = [PROJECTED, &["--quantizer", "q4-0", "--base-share", "0"]].concat();
        let share = errors("q4-0", &options).corrected / mxint4.corrected;
        assert!(share <= most, "{name}: {share}");
    }
}
