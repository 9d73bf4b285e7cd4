//! Bytes against those of the library compressed-tensors: `tests/packed_base/vectors.safetensors`,
//! which `tests/packed_base/make_vectors.py` makes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::sine_values;
use safetensors::Dtype;

use crate::BINARY;
use crate::folder::{BaseFolder, FoundTensor, tensors_of};
use crate::model::run_both;

const MODULE: &str = "model.layers.0.self_attn.o_proj";
/// What the tensors of a case are called, and the options that make them.
const CASES: [(&str, &str); 8] = [
    ("mxint4", "--quantizer mxint4"),
    ("mxint4-64", "--quantizer mxint4 --block-size 64"),
    ("mxint8", "--quantizer mxint8"),
    ("int4", "--quantizer int4"),
    (
        "int4-64-bf16",
        "--quantizer int4 --block-size 64 --scale-dtype bf16",
    ),
    ("int4-f32", "--quantizer int4 --scale-dtype f32"),
    ("int8", "--quantizer int8"),
    ("int4-zero-points", "--quantizer int4 --zero-points"),
];

/// A daemon's folder with a layer that has this W.
fn daemon_with(weight: &FoundTensor) -> TestDaemon {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let checkpoint = daemon.path().join("checkpoint");
    fs::create_dir(&checkpoint).unwrap();
    let name = format!("{MODULE}.weight");
    let tensor = TensorToWrite::new(&name, "F32", &weight.shape, weight.bytes.clone());
    write_safetensors(&checkpoint.join("model.safetensors"), &[tensor], &[]);
    fs::write(checkpoint.join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
    let width = weight.shape[1];
    let rows = TensorToWrite::f32(MODULE, &[50, width], &sine_values(50 * width, 0.0));
    write_safetensors(&daemon.watched().join("a.safetensors"), &[rows], &[]);
    daemon
}

#[test]
fn bytes_and_numbers_are_those_of_the_library() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("packed_base/vectors.safetensors");
    let vectors = tensors_of(&file);
    for (case, options) in CASES {
        let of_case = |part: &str| &vectors[&format!("{case}.{part}")];
        let daemon = daemon_with(of_case("weight"));
        let options: Vec<&str> = options.split(' ').collect();
        expect(&run_both(&daemon, &options), 0, &["published generation 1"]);
        let out = daemon.path().join("qera-out");
        let packed = BaseFolder::open(&out.join("base-compressed-tensors"));
        let parts = vectors.iter().filter_map(|(name, tensor)| {
            let part = name.strip_prefix(&format!("{case}."))?;
            let written = part.starts_with("weight_");
            written.then(|| (format!("{MODULE}.{part}"), tensor.clone()))
        });
        let expected: BTreeMap<String, FoundTensor> = parts.collect();
        assert_eq!(packed.tensors, expected, "{case}");

        // W~ of the base with numbers, as it is read from the packed one.
        let numbers = BaseFolder::open(&out.join("base")).weight(MODULE);
        assert!(packed.weight(MODULE) == numbers, "{case}");
        // The library multiplies in the scale's type.
        let rounded: Vec<f32> = numbers
            .iter()
            .map(|x| match of_case("weight_scale").dtype {
                Dtype::F16 => f16::from_f32(*x).to_f32(),
                Dtype::BF16 => bf16::from_f32(*x).to_f32(),
                _ => *x,
            })
            .collect();
        assert!(of_case("decompressed").numbers() == rounded, "{case}");
        let exact = rounded == numbers;
        assert_eq!(
            packed.record["packed"]["exact_in_bf16"],
            case.starts_with("mxint"),
            "{case}"
        );
        assert_eq!(
            exact,
            case.starts_with("mxint") || case == "int4-f32",
            "{case}"
        );
    }
}
