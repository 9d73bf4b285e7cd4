//! Grids with free scales, rounded to nearest: the base, held against the definition; the adapter
//! on it; the check of both; and what another grid of the same name is told.

use core::ops::RangeInclusive;
use std::fs;

use half::{bf16, f16};
use qera_tests::adapter::output_error;
use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::sine_values;
use safetensors::SafeTensors;

use super::BINARY;
use super::one_layer::{MODULE, run_once, write_weight};

const IN: usize = 96;
const OUT: usize = 5;
const ROWS: usize = 400;

/// The options of a grid, and what is to come of them.
struct Case {
    options: &'static [&'static str],
    /// The grid's name in messages and in each layer of the manifest.
    named: &'static str,
    block_size: usize,
    /// W~ of one block, by the definition.
    quantize: fn(&[f32]) -> Vec<f32>,
}

const CASES: [Case; 4] = [
    Case {
        options: &["--quantizer", "int4"],
        named: "int4/32/f16",
        block_size: 32,
        quantize: |block| {
            let largest = block.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            let scale = f16::from_f64(2.0 * f64::from(largest) / 15.0).to_f32();
            nearest(block, scale, -8.0..=7.0)
        },
    },
    Case {
        options: &[
            "--quantizer",
            "int3",
            "--block-size",
            "64",
            "--scale-dtype",
            "bf16",
            "--zero-points",
        ],
        named: "int3/64/bf16/zero-points",
        block_size: 64,
        quantize: |block| {
            let least = block.iter().fold(0.0_f32, |least, &x| least.min(x));
            let most = block.iter().fold(0.0_f32, |most, &x| most.max(x));
            let scale = bf16::from_f64((f64::from(most) - f64::from(least)) / 7.0).to_f32();
            let zero_point = (-least / scale).round_ties_even();
            nearest(block, scale, -zero_point..=7.0 - zero_point)
        },
    },
    Case {
        options: &[
            "--quantizer",
            "int2",
            "--block-size",
            "128",
            "--scale-dtype",
            "f32",
        ],
        named: "int2/128/f32",
        block_size: 128,
        quantize: |block| {
            let largest = block.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            nearest(block, 2.0 * largest / 3.0, -2.0..=1.0)
        },
    },
    Case {
        options: &["--quantizer", "q4-0"],
        named: "q4-0/32",
        block_size: 32,
        // As ggml's quantize_row_q4_0_ref defines it.
        quantize: |block| {
            let mut largest = 0.0_f32;
            for &x in block {
                if largest.abs() < x.abs() {
                    largest = x;
                }
            }
            let scale = largest / -8.0;
            let inverse = 1.0 / scale;
            let stored = f16::from_f32(scale).to_f32();
            let code = |x: &f32| (x * inverse + 8.5).trunc().min(15.0);
            let values = block.iter().map(code);
            values.map(|code| (code - 8.0) * stored).collect()
        },
    },
];

/// The integer nearest to x / scale, of halves the even one, among these: the largest magnitude of
/// a symmetric int2 block lies on a half.
fn nearest(block: &[f32], scale: f32, integers: RangeInclusive<f32>) -> Vec<f32> {
    let (least, most) = integers.into_inner();
    let integer = |x: &f32| (x / scale).round_ties_even().clamp(least, most);
    block.iter().map(|x| integer(x) * scale).collect()
}

fn weight() -> Vec<f32> {
    // No two blocks are alike, and none reaches as far above 0 as below.
    let sines = sine_values(IN * OUT, 0.3).into_iter().enumerate();
    sines
        .map(|(i, x)| x * (1.0 + i as f32 * 0.01) + 0.4)
        .collect()
}

fn rows() -> Vec<f32> {
    let values = |phase: f32| sine_values(IN * ROWS, phase);
    let products = values(0.0).into_iter().zip(values(1.9).into_iter().rev());
    products.map(|(x, y)| x * y).collect()
}

/// W~ of the whole weight.
fn expected(case: &Case) -> Vec<f32> {
    let weight = weight();
    let blocks = weight
        .chunks(IN)
        .flat_map(|row| row.chunks(case.block_size));
    blocks.flat_map(case.quantize).collect()
}

fn daemon() -> TestDaemon {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    fs::create_dir(daemon.path().join("checkpoint")).unwrap();
    let bytes = weight().iter().flat_map(|w| w.to_le_bytes()).collect();
    write_weight(daemon.path(), "F32", &[OUT, IN], bytes);
    let shard = TensorToWrite::f32(MODULE, &[ROWS, IN], &rows());
    write_safetensors(&daemon.watched().join("a.safetensors"), &[shard], &[]);
    daemon
}

/// The type and the values of W~ in a base.
struct Stored {
    dtype: String,
    values: Vec<f32>,
}

fn stored(daemon: &TestDaemon, out: &str) -> Stored {
    let path = daemon.path().join(out).join("base/model.safetensors");
    let bytes = fs::read(path).unwrap();
    let base = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = base.tensor(&format!("{MODULE}.weight")).unwrap();
    let values = match tensor.dtype().to_string().as_str() {
        "F32" => {
            let values = tensor.data().as_chunks::<4>().0.iter();
            values.map(|b| f32::from_le_bytes(*b)).collect()
        }
        _ => {
            let values = tensor.data().as_chunks::<2>().0.iter();
            values.map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
        }
    };
    Stored {
        dtype: tensor.dtype().to_string(),
        values,
    }
}

#[test]
fn the_base_holds_the_nearest_levels_and_the_adapter_fits_it() {
    let daemon = daemon();
    for case in CASES {
        let Case { options, named, .. } = case;
        let out = named.replace('/', "-");
        let common = ["--emit-base", "--rank", "2", "--out", &out];
        let options = [&common, options].concat();
        expect(&run_once(&daemon, &options), 0, &["generation 1"]);
        let base = stored(&daemon, &out);
        assert_eq!(base.dtype, "F32", "{named}");
        assert_eq!(base.values, expected(&case), "{named}");

        let adapter = daemon.adapter(&out);
        let layer = adapter.layer(MODULE);
        assert_eq!(layer["quantizer"], named);
        let weight = weight();
        let pairs = weight.iter().zip(&base.values);
        let error: Vec<f32> = pairs.map(|(w, q)| w - q).collect();
        for ((w, q), e) in weight.iter().zip(&base.values).zip(&error) {
            let exact = f64::from(*w) - f64::from(*q);
            assert_eq!(exact.to_bits(), f64::from(*e).to_bits(), "{named}: {w} {q}");
        }
        let rows = rows();
        let without = output_error(&rows, &error, IN, None);
        let with = output_error(&rows, &error, IN, Some(&adapter.factors(MODULE)));
        assert!(with < 0.9 * without, "{named}: {with} of {without}");
        for (told, truth) in [("without", without), ("rounded", with)] {
            let told = layer["error"][told].as_f64().unwrap();
            assert!((told / truth - 1.0).abs() < 1e-5, "{named}: {told} {truth}");
        }
        let current = format!("{out}/current");
        let verify = daemon.run(&["verify", "--adapter", &current]);
        assert_eq!(verify.code, 0, "{named}: {}", verify.output);
        let on_weights = ["verify", "--adapter", &current, "--base", "checkpoint"];
        let verify = daemon.run(&on_weights);
        let said = format!("is not quantized by {named}: the correction would do harm");
        assert_eq!(verify.code, 1, "{named}: {}", verify.output);
        assert!(verify.output.contains(&said), "{}", verify.output);
    }
}

/// Products of an 11-bit scale and a code do not fit bf16: what the adapter corrects must be what
/// is stored, so that the base is f32 where MXINT's is bf16.
#[test]
fn a_base_of_free_scales_is_f32_where_the_weights_are_bf16() {
    let daemon = daemon();
    let weight: Vec<bf16> = weight().into_iter().map(bf16::from_f32).collect();
    let bytes = weight.iter().flat_map(|w| w.to_le_bytes()).collect();
    write_weight(daemon.path(), "BF16", &[OUT, IN], bytes);
    let emit = |options: &[&str]| {
        let run = run_once(&daemon, &[&["--emit-base"], options].concat());
        expect(&run, 0, &["generation 1"]);
    };
    let weight: Vec<f32> = weight.iter().map(|w| w.to_f32()).collect();
    for case in CASES {
        let out = case.named.replace('/', "-");
        emit(&[&["--out", &out], case.options].concat());
        let base = stored(&daemon, &out);
        let blocks = weight.chunks(IN).flat_map(|r| r.chunks(case.block_size));
        let expected: Vec<f32> = blocks.flat_map(case.quantize).collect();
        assert_eq!((base.dtype.as_str(), base.values), ("F32", expected));
    }
    emit(&["--out", "mxint"]);
    assert_eq!(stored(&daemon, "mxint").dtype, "BF16");
    // Its levels are -2, -1, 0 and 1 times the scale, which is a bf16 number itself.
    let short = ["--quantizer", "int2", "--scale-dtype", "bf16"];
    emit(&[&["--out", "short"], &short[..]].concat());
    assert_eq!(stored(&daemon, "short").dtype, "BF16");
}

#[test]
fn another_scale_is_another_quantizer() {
    let daemon = daemon();
    let int4 = ["--quantizer", "int4"];
    expect(&run_once(&daemon, &int4), 0, &["generation 1"]);
    let manifest = daemon.path().join("qera-out/current/qera_manifest.json");
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    let settings = &manifest["settings"];
    let found = ["quantizer", "block_size", "scale_dtype", "zero_points"].map(|key| &settings[key]);
    let null = serde_json::Value::Null;
    assert_eq!(found, [&"int4".into(), &32.into(), &"f16".into(), &null]);
    for (more, other) in [
        (&["--scale-dtype", "bf16"][..], "int4/32/bf16"),
        (&["--zero-points"], "int4/32/f16/zero-points"),
        (&["--block-size", "64"], "int4/64/f16"),
    ] {
        let said = format!("corrects int4/32/f16, this run uses {other}: choose another --out");
        let run = run_once(&daemon, &[&int4, more].concat());
        expect(&run, 4, &[&said]);
    }
    expect(&run_once(&daemon, &int4), 0, &["nothing new"]);
}
