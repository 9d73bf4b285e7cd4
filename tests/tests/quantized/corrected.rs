//! What the adapter corrects is the file's own error, in the checkpoint's order of rows.

use crate::BINARY;
use qera_tests::adapter::{Adapter, output_error};
use qera_tests::daemon::expect;
use qera_tests::gguf_file::{GgufTensorToWrite, coarse_values};
use qera_tests::gguf_model::{
    GgufTestLayer, LAYERS, ONCE, daemon_with_gguf, empty_model, full_model, quantized_model,
};
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};

/// f is measured in f64 of f32 products.
const CLOSE: f64 = 1e-5;

/// E = W - W~ by the test's own decoder.
fn error(layer: &GgufTestLayer) -> Vec<f32> {
    let weight = layer.weight();
    let quantized = coarse_values(&weight);
    weight.iter().zip(quantized).map(|(w, q)| w - q).collect()
}

fn assert_close(found: &serde_json::Value, expected: f64, what: &str) {
    let found = found.as_f64().unwrap();
    let far = (found - expected).abs() / expected;
    assert!(far < CLOSE, "{what}: {found}, not {expected}");
}

fn assert_corrects(adapter: &Adapter) {
    for layer in &LAYERS {
        let rows = [layer.rows(0.0), layer.rows(1.0)].concat();
        let (m, error) = (layer.in_features, error(layer));
        let record = adapter.layer(layer.module);
        let without = output_error(&rows, &error, m, None);
        assert_close(&record["error"]["without"], without, layer.module);
        let factors = adapter.factors(layer.module);
        let with = output_error(&rows, &error, m, Some(&factors));
        assert_close(&record["error"]["rounded"], with, layer.module);
        assert!(with < 0.7 * without, "{with} of {without}");
    }
}

#[test]
fn the_file_s_own_error_is_corrected() {
    let daemon = daemon_with_gguf(BINARY);
    let options = [&ONCE[..], &["--method", "exact", "--shrinkage", "0"]].concat();
    expect(&daemon.run(&options), 0, &[]);
    let adapter = daemon.adapter("qera-out");
    assert_corrects(&adapter);

    let readme = std::fs::read_to_string(daemon.path().join("qera-out/current/README.md")).unwrap();
    for said in [
        "on no other",
        "/model.gguf --lora",
        "gguf_file=\"model.gguf\"",
    ] {
        assert!(readme.contains(said), "{said}: {readme}");
    }

    let manifest = &adapter.manifest;
    assert_eq!(manifest["settings"]["quantizer"], "gguf");
    let path = manifest["quantized"]["path"].as_str().unwrap();
    assert!(
        path.starts_with('/') && path.ends_with("/model.gguf"),
        "{path}"
    );
    assert_eq!(manifest["quantized"]["architecture"], "llama");
    assert!(
        manifest["fingerprints"]["quantized"]
            .as_str()
            .unwrap()
            .starts_with("blake3:")
    );
    for layer in &LAYERS {
        let record = adapter.layer(layer.module);
        assert_eq!(record["quantizer"], "Q4_0");
        let read = &record["read"];
        assert_eq!(read["tensor"], format!("{}.weight", layer.tensor));
        let (weight, error) = (layer.weight(), error(layer));
        let norm = |of: &[f32]| of.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        assert_close(
            &read["relative_error"],
            norm(&error) / norm(&weight),
            layer.module,
        );
        assert!(read["correlation"].as_f64().unwrap() > 0.95);
    }
}

#[test]
fn both_forms_of_the_checkpoint_give_the_same_adapter() {
    let daemon = daemon_with_gguf(BINARY);
    expect(&daemon.run(&ONCE), 0, &[]);
    let of_gguf: Vec<&str> = ONCE
        .iter()
        .map(|word| {
            if *word == "checkpoint" {
                "full.gguf"
            } else {
                word
            }
        })
        .chain(["--out", "of-gguf"])
        .collect();
    expect(&daemon.run(&of_gguf), 0, &[]);
    let (one, other) = (daemon.adapter("qera-out"), daemon.adapter("of-gguf"));
    assert_eq!(one.bytes, other.bytes);
    for layer in &LAYERS {
        assert_eq!(
            one.layer(layer.module)["error"],
            other.layer(layer.module)["error"]
        );
    }
}

/// Of W from a GGUF qera makes W~ as it does of any other.
#[test]
fn a_gguf_in_full_precision_is_quantized_like_any_checkpoint() {
    let daemon = daemon_with_gguf(BINARY);
    for (checkpoint, out) in [("checkpoint", "of-folder"), ("full.gguf", "of-gguf")] {
        let options = [
            "--once",
            "--watch",
            "activations",
            "--checkpoint",
            checkpoint,
        ];
        expect(
            &daemon.run(&[&options[..], &["--out", out]].concat()),
            0,
            &[],
        );
    }
    let (one, other) = (daemon.adapter("of-folder"), daemon.adapter("of-gguf"));
    assert_eq!(one.bytes, other.bytes);
    assert!(one.manifest.get("quantized").is_none());
}

#[test]
fn plan_shows_how_far_each_tensor_is() {
    let daemon = daemon_with_gguf(BINARY);
    let run = daemon.run(&[&["plan"], &ONCE[1..]].concat());
    assert_eq!(run.code, 0, "{}", run.log);
    for said in ["blk.0.attn_q.weight", "Q4_0", "correlation"] {
        assert!(run.output.contains(said), "{said}: {}", run.output);
    }
}

#[test]
fn a_scale_beside_a_tensor_is_a_factor_of_it() {
    let daemon = daemon_with_gguf(BINARY);
    expect(
        &daemon.run(&[&ONCE[..], &["--exclude", "*down_proj"]].concat()),
        0,
        &[],
    );
    // Halved blocks and a scale of two: powers of two change no bit.
    let model = LAYERS.iter().fold(empty_model(), |model, layer| {
        let half: Vec<f32> = layer.weight().iter().map(|w| w / 2.0).collect();
        let scale = GgufTensorToWrite::f32(&format!("{}.scale", layer.tensor), &[1], &[2.0]);
        model
            .tensor(layer.coarse(&layer.in_gguf_order(&half)))
            .tensor(scale)
    });
    model.write(&daemon.path().join("model.gguf"));
    let scaled = [&ONCE[..], &["--out", "scaled"]].concat();
    // Of a feed-forward layer the engine multiplies the adapter by it, too.
    expect(&daemon.run(&scaled), 0, &["down_proj", ".scale beside it"]);
    let adapter = daemon.adapter("scaled");
    assert_eq!(daemon.adapter("qera-out").bytes, adapter.bytes);
    assert!(!adapter.has(LAYERS[2].module));

    let readme = std::fs::read_to_string(daemon.path().join("scaled/current/README.md")).unwrap();
    assert!(
        !readme.contains("gguf_file"),
        "Transformers knows no scales: {readme}"
    );
    let checkpoint = ["--once", "--watch", "activations", "--checkpoint"];
    let scales = full_model().tensor(GgufTensorToWrite::f32("blk.0.attn_q.scale", &[1], &[2.0]));
    scales.write(&daemon.path().join("full.gguf"));
    let run = daemon.run(&[&checkpoint[..], &["full.gguf", "--out", "x"]].concat());
    expect(&run, 1, &["blk.0.attn_q.weight", "'blk.0.attn_q.scale'"]);

    let wrong = GgufTensorToWrite::f32("blk.0.attn_q.scale", &[2], &[2.0, 2.0]);
    quantized_model()
        .tensor(wrong)
        .write(&daemon.path().join("model.gguf"));
    let run = daemon.run(&[&ONCE[..], &["--out", "wrong"]].concat());
    expect(&run, 1, &["blk.0.attn_q.scale", "single F32"]);
}

/// Other writers give a matrix more lengths than two.
#[test]
fn lengths_of_one_behind_a_matrix_are_none() {
    let daemon = daemon_with_gguf(BINARY);
    expect(&daemon.run(&ONCE), 0, &[]);
    let mut model = quantized_model();
    model.tensors.iter_mut().for_each(|of| of.ne.extend([1, 1]));
    model.write(&daemon.path().join("model.gguf"));
    expect(
        &daemon.run(&[&ONCE[..], &["--out", "other"]].concat()),
        0,
        &[],
    );
    assert_eq!(
        daemon.adapter("qera-out").bytes,
        daemon.adapter("other").bytes
    );
}

/// The text model of a model of several parts has the names of its own kind, under the part's path.
#[test]
fn a_part_of_a_model_is_met_under_its_path() {
    let daemon = daemon_with_gguf(BINARY);
    let folder = daemon.path().join("checkpoint");
    let under = |module: &str| format!("language_model.{module}");
    let weights = LAYERS.iter().map(|layer| {
        let shape = [layer.out_features, layer.in_features];
        TensorToWrite::f32(
            &format!("{}.weight", under(layer.module)),
            &shape,
            &layer.weight(),
        )
    });
    write_safetensors(
        &folder.join("model.safetensors"),
        &weights.collect::<Vec<_>>(),
        &[],
    );
    let config = r#"{"model_type": "llava", "text_config": {"model_type": "llama"}}"#;
    std::fs::write(folder.join("config.json"), config).unwrap();
    let class = ["--map", "model=language_model.model"];
    let plan = daemon.run(&[&["plan"], &ONCE[1..], &class].concat());
    assert_eq!(plan.code, 0, "{}", plan.log);
    assert!(
        plan.output.contains("blk.0.attn_q.weight"),
        "{}",
        plan.output
    );
}

#[test]
fn it_is_corrected_live_and_solved_again_from_the_state() {
    let daemon = daemon_with_gguf(BINARY);
    let live: Vec<&str> = ONCE[1..].to_vec();
    let mut running = daemon.command(&live).spawn().unwrap();
    daemon.wait_until_idle(2);
    std::process::Command::new("kill")
        .args(["-TERM", &running.id().to_string()])
        .status()
        .unwrap();
    assert!(running.wait().unwrap().success());
    let once = [&ONCE[..], &["--out", "once"]].concat();
    expect(&daemon.run(&once), 0, &[]);
    assert_eq!(
        daemon.adapter("qera-out").bytes,
        daemon.adapter("once").bytes
    );

    let solve = ["solve", "--state", "qera-out/state", "--out", "solved"];
    let solve = [&solve[..], &ONCE[3..]].concat();
    expect(&daemon.run(&solve), 0, &[]);
    assert_eq!(
        daemon.adapter("qera-out").bytes,
        daemon.adapter("solved").bytes
    );
}
