//! `OUT/base`: every tensor keeps its type, W~ stands in that of the weight that it replaces, and
//! what lies beside the weights lies beside them again.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::quantization::quantized;
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::{daemon_with_shards, once_with, sine_values};
use safetensors::SafeTensors;
use serde_json::Value;

use super::BINARY;
use super::one_layer::{MODULE, daemon_with_one_layer, run_once};

/// A layer of each type, and tensors that are no layers.
fn mixed_types() -> [TensorToWrite; 8] {
    let layer = |of: fn(&str, &[usize], &[f32]) -> TensorToWrite, name: &str| {
        of(name, &[4, 8], &sine_values(32, 1.0))
    };
    // Sixteen values that bf16 cannot tell apart, and one that it has no room for.
    let router: Vec<f32> = (0..16).map(|i| 1.0 + i as f32 * 1e-4).collect();
    let integers = (0..4_i64).flat_map(i64::to_le_bytes).collect();
    [
        layer(TensorToWrite::f32, &format!("{MODULE}.weight")),
        layer(TensorToWrite::f16, "model.half.weight"),
        layer(TensorToWrite::bf16, "model.brain.weight"),
        TensorToWrite::f32("model.router.bias", &[16], &router),
        TensorToWrite::f32("model.mask", &[2], &[3.4e38, f32::NEG_INFINITY]),
        TensorToWrite::f16("model.norm.weight", &[2], &[1.0, 65504.0]),
        TensorToWrite::new("model.positions", "I64", &[4], integers),
        TensorToWrite::new("model.double.bias", "F64", &[1], vec![1; 8]),
    ]
}

fn base(daemon: &TestDaemon) -> Vec<u8> {
    fs::read(daemon.path().join("qera-out/base/model.safetensors")).unwrap()
}

#[test]
fn every_tensor_keeps_its_type_and_its_bits() {
    let daemon = daemon_with_one_layer();
    let tensors = mixed_types();
    let checkpoint = daemon.path().join("checkpoint");
    write_safetensors(&checkpoint.join("model.safetensors"), &tensors, &[]);
    let config = "{\"torch_dtype\":   \"float16\"}\n";
    fs::write(checkpoint.join("config.json"), config).unwrap();
    let mut options = vec!["--emit-base", "--quantizer", "mxint3", "--block-size", "8"];
    for layer in [MODULE, "model.half", "model.brain"] {
        options.extend(["--include", layer]);
    }
    expect(&run_once(&daemon, &options), 0, &[": 3 layers on"]);
    let copied = fs::read_to_string(daemon.path().join("qera-out/base/config.json"));
    assert_eq!(copied.unwrap(), config, "byte for byte");

    let bytes = base(&daemon);
    let base = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(base.len(), tensors.len());
    for TensorToWrite {
        name,
        dtype,
        shape,
        bytes,
    } in &tensors
    {
        let found = base.tensor(name).unwrap();
        assert_eq!(found.dtype().to_string(), *dtype, "{name}");
        assert_eq!(found.shape(), shape, "{name}");
        let is_layer = shape.len() == 2;
        assert_eq!(found.data() == bytes, !is_layer, "{name}");
        if is_layer {
            let expected = quantized(&values(bytes, dtype), 8, 3, 8);
            assert_eq!(values(found.data(), dtype), expected, "{name}");
        }
    }
    expect(&run_once(&daemon, &options), 0, &["nothing new"]);
}

fn values(bytes: &[u8], dtype: &str) -> Vec<f32> {
    let halves = bytes.as_chunks::<2>().0.iter();
    match dtype {
        "F16" => halves
            .map(|b| half::f16::from_le_bytes(*b).to_f32())
            .collect(),
        "BF16" => halves
            .map(|b| half::bf16::from_le_bytes(*b).to_f32())
            .collect(),
        _ => {
            let values = bytes.as_chunks::<4>().0.iter();
            values.map(|b| f32::from_le_bytes(*b)).collect()
        }
    }
}

/// The output folder, its state and the watched folder lie in the checkpoint's folder here.
#[test]
fn what_lies_beside_the_weights_is_copied() {
    let daemon = daemon_with_one_layer();
    let checkpoint = daemon.path().join("checkpoint");
    fs::rename(daemon.watched(), checkpoint.join("activations")).unwrap();
    fs::create_dir_all(checkpoint.join("1_Pooling")).unwrap();
    fs::write(checkpoint.join("activations/notes.txt"), "").unwrap();
    let files = ["modeling_own.py", "spiece.model", "1_Pooling/config.json"];
    for file in files {
        fs::write(checkpoint.join(file), file).unwrap();
    }
    fs::write(checkpoint.join("pytorch_model.bin"), "PK").unwrap();
    let missing = checkpoint.join("tokenizer.json");
    std::os::unix::fs::symlink("nowhere", &missing).unwrap();
    let run = |checkpoint: &str, out: &str| {
        daemon.run(&[
            "--once",
            "--watch",
            "checkpoint/activations",
            "--checkpoint",
            checkpoint,
            "--out",
            out,
            "--emit-base",
        ])
    };
    // What cannot be read is found before a row is.
    let refused = run("checkpoint", "checkpoint/out");
    expect(&refused, 1, &["checkpoint/tokenizer.json: read"]);
    assert!(!refused.log.contains("folded"), "{}", refused.log);
    fs::remove_file(missing).unwrap();
    expect(&run("checkpoint", "checkpoint/out"), 0, &[]);
    let base = checkpoint.join("out/base");
    for file in files {
        assert_eq!(fs::read_to_string(base.join(file)).unwrap(), file);
    }
    let names = |folder: &std::path::Path| {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    let expected = [
        "1_Pooling",
        "model.safetensors",
        "modeling_own.py",
        "qera_base.json",
        "qera_base.md",
        "spiece.model",
    ];
    assert_eq!(names(&base), expected);
    // Of a checkpoint that is given as a file, what lies deeper may belong to others.
    expect(&run("checkpoint/model.safetensors", "by-file"), 0, &[]);
    let by_file = names(&daemon.path().join("by-file/base"));
    assert_eq!(by_file, expected[1..]);
}

/// A base of the time when all of its tensors were bf16 is not taken for one of today.
#[test]
fn a_base_of_version_1_is_refused() {
    let daemon = daemon_with_one_layer();
    expect(&run_once(&daemon, &["--emit-base"]), 0, &[]);
    let path = daemon.path().join("qera-out/base/qera_base.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record.as_object_mut().unwrap().remove("version").unwrap();
    fs::write(&path, record.to_string()).unwrap();
    expect(
        &run_once(&daemon, &[]),
        4,
        &[
            "base: has version 1, this program writes version 2",
            "choose another --out",
        ],
    );
}

/// In the log, beside the weights and in the generation's README.
#[test]
fn what_the_base_is_worth_alone_is_said() {
    let daemon = daemon_with_shards(BINARY);
    let run = daemon.run(&once_with(&["--emit-base", "--log-format", "json"]));
    expect(&run, 0, &[]);
    let events = run.log.lines().map(serde_json::from_str);
    let events: Vec<Value> = events.collect::<Result<_, _>>().unwrap();
    let written: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "base-written")
        .collect();
    let [written] = written[..] else {
        panic!("{written:?}");
    };
    let adapter = daemon.adapter("qera-out");
    let errors = |key: &str| -> Vec<f64> {
        let layers = adapter.layers().iter();
        layers.map(|l| l["error"][key].as_f64().unwrap()).collect()
    };
    let mean = |errors: &[f64]| {
        let logs: f64 = errors.iter().map(|error| error.ln()).sum();
        (logs / errors.len() as f64).exp()
    };
    let (without, with) = (errors("relative_without"), errors("relative_with"));
    assert_eq!((written["layers"].as_u64(), without.len()), (Some(3), 3));
    let near = |key: &str, expected: f64| {
        let found = written[key].as_f64().unwrap();
        assert!((found / expected - 1.0).abs() < 1e-12, "{key}: {written}");
    };
    near("alone", mean(&without));
    near("corrected", mean(&with));
    assert!(written["nearest"].is_null(), "{written}");
    let worst = without.iter().copied().fold(0.0, f64::max);
    let of_worst = &adapter.layer(written["worst"]["layer"].as_str().unwrap())["error"];
    assert_eq!(of_worst["relative_without"].as_f64(), Some(worst));
    let out = daemon.path().join("qera-out");
    for text in ["base/qera_base.md", "current/README.md"] {
        let text = fs::read_to_string(out.join(text)).unwrap();
        for said in [
            &format!("| this W~ without adapter | {:.2e} |", mean(&without)),
            &format!("| this W~ with the adapter | {:.2e} |", mean(&with)),
            "These errors say how good W~ is without its adapter.",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
        assert!(!text.contains("rounded to nearest, without"), "{text}");
        assert!(!text.contains("3 bits"), "{text}");
    }
    let readme = fs::read_to_string(out.join("current/README.md")).unwrap();
    let belongs = "It belongs on W~, the weights quantized by mxint4/4 in `";
    assert!(readme.contains(belongs), "{readme}");
    // The base is written only once.
    let again = daemon.run(&once_with(&["--emit-base", "--method", "approx"]));
    expect(&again, 0, &["published generation 2"]);
    assert!(!again.log.contains("base written"), "{}", again.log);
}
