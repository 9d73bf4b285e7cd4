//! What the adapter corrects is the folder's own error, however it is packed.

use crate::BINARY;
use qera_tests::adapter::{Adapter, output_error};
use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::gguf_model::LAYERS;
use qera_tests::packed_model::{Coding, ONCE, PLAIN, PackedModel, daemon_with_packed, weights};

/// f is measured in f64 of f32 products.
const CLOSE: f64 = 1e-5;
const EXACT: [&str; 4] = ["--method", "exact", "--shrinkage", "0"];

fn assert_close(found: &serde_json::Value, expected: f64, what: &str) {
    let found = found.as_f64().unwrap();
    let far = (found - expected).abs() / expected;
    assert!(far < CLOSE, "{what}: {found}, not {expected}");
}

fn assert_corrects(adapter: &Adapter, model: &PackedModel) {
    for (layer, quantized) in LAYERS.iter().zip(&model.values) {
        let rows = [layer.rows(0.0), layer.rows(1.0)].concat();
        let weight = layer.weight();
        let error: Vec<f32> = weight.iter().zip(quantized).map(|(w, q)| w - q).collect();
        let (m, record) = (layer.in_features, adapter.layer(layer.module));
        let without = output_error(&rows, &error, m, None);
        assert_close(&record["error"]["without"], without, layer.module);
        let factors = adapter.factors(layer.module);
        let with = output_error(&rows, &error, m, Some(&factors));
        assert_close(&record["error"]["rounded"], with, layer.module);
        assert!(with < 0.7 * without, "{with} of {without}");
    }
}

fn run(model: &PackedModel) -> TestDaemon {
    let daemon = daemon_with_packed(BINARY, model);
    expect(&daemon.run(&[&ONCE[..], &EXACT].concat()), 0, &[]);
    daemon
}

fn types(adapter: &Adapter) -> Vec<String> {
    let layers = adapter.layers().iter();
    let types = layers.map(|layer| {
        assert_eq!(layer["quantizer"], layer["read"]["type"]);
        layer["quantizer"].as_str().unwrap().to_owned()
    });
    types.collect()
}

#[test]
fn compressed_tensors_of_four_bits_is_corrected() {
    for symmetric in [true, false] {
        let coding = Coding { symmetric, ..PLAIN };
        let model = PackedModel::compressed_tensors(&weights(), coding);
        let daemon = run(&model);
        let adapter = daemon.adapter("qera-out");
        assert_corrects(&adapter, &model);
        let of = if symmetric {
            "int4/16/f16"
        } else {
            "int4/16/f16/zero-points"
        };
        assert_eq!(types(&adapter), [of; 3]);
        let manifest = &adapter.manifest;
        assert_eq!(manifest["settings"]["quantizer"], "compressed-tensors");
        assert_eq!(manifest["quantized"]["method"], "compressed-tensors");
        assert_eq!(manifest["quantized"]["files"], 1);
        assert!(manifest["quantized"].get("architecture").is_none());
        let path = manifest["quantized"]["path"].as_str().unwrap();
        assert!(path.starts_with('/') && path.ends_with("/packed"), "{path}");
        assert_eq!(adapter.config["base_model_name_or_path"], path);
        let read = &adapter.layer(LAYERS[0].module)["read"];
        assert_eq!(
            read["tensor"],
            format!("{}.weight_packed", LAYERS[0].module)
        );
        assert!(read.get("zero_points").is_none());
        let readme = daemon.path().join("qera-out/current/README.md");
        let readme = std::fs::read_to_string(readme).unwrap();
        for said in [
            "on no other",
            "vllm serve /",
            "/packed --enable-lora",
            "from_pretrained(\"/",
        ] {
            assert!(readme.contains(said), "{said}: {readme}");
        }
        assert!(!readme.contains("llama.cpp"), "{readme}");
    }
}

#[test]
fn other_bits_and_orders_are_corrected() {
    let eight = Coding { bits: 8, ..PLAIN };
    let ordered = Coding {
        ordered: true,
        ..PLAIN
    };
    let of = weights();
    for (model, stored_in) in [
        (
            PackedModel::compressed_tensors(&of, eight),
            "int8/16/f16/zero-points",
        ),
        (
            PackedModel::compressed_tensors(&of, ordered),
            "int4/16/f16/zero-points",
        ),
        (
            PackedModel::gptq(&of, eight, 1, "gptq"),
            "int8/16/f16/zero-points",
        ),
        (
            PackedModel::gptq(&of, ordered, 1, "gptq"),
            "int4/16/f16/zero-points",
        ),
        (PackedModel::awq(&of), "int4/16/f16/zero-points"),
    ] {
        let adapter = run(&model).adapter("qera-out");
        assert_corrects(&adapter, &model);
        assert_eq!(types(&adapter), [stored_in; 3]);
    }
}

/// As a tensor of a GGUF that is F16: read, and nothing is left to correct.
#[test]
fn a_layer_that_the_folder_leaves_as_it_was_has_no_error() {
    let [_, _, down] = LAYERS;
    let model = PackedModel::awq(&weights()).unpacked(2, &down.weight());
    let daemon = daemon_with_packed(BINARY, &model);
    expect(&daemon.run(&ONCE), 0, &[]);
    let adapter = daemon.adapter("qera-out");
    let layer = adapter.layer(down.module);
    assert_eq!(
        (
            layer["quantizer"].as_str(),
            layer["error"]["without"].as_f64()
        ),
        (Some("f32"), Some(0.0))
    );
    assert_eq!(layer["read"]["relative_error"], 0.0);
    assert_eq!(layer["status"], "nothing-to-correct");
}

#[test]
fn a_layer_that_the_folder_lacks_is_left_out() {
    let mut model = PackedModel::awq(&weights());
    let own = format!("{}.", LAYERS[1].module);
    model
        .tensors
        .retain(|tensor| !tensor.name.starts_with(&own));
    let daemon = daemon_with_packed(BINARY, &model);
    expect(
        &daemon.run(&ONCE),
        0,
        &["k_proj", "the --quantized folder has no weight for it"],
    );
    let adapter = daemon.adapter("qera-out");
    assert!(adapter.has(LAYERS[0].module) && !adapter.has(LAYERS[1].module));
}

/// Some weights have other bits by a rule of their own; their shapes say which.
#[test]
fn gptq_of_several_bits_is_read_by_its_shapes() {
    let of = weights();
    let mut model = PackedModel::gptq(&of, PLAIN, 1, "gptq");
    let eight = PackedModel::gptq(&of, Coding { bits: 8, ..PLAIN }, 1, "gptq");
    let down = |name: &str| name.starts_with(LAYERS[2].module);
    model.tensors.retain(|tensor| !down(&tensor.name));
    let wide = eight
        .tensors
        .into_iter()
        .filter(|tensor| down(&tensor.name));
    model.tensors.extend(wide);
    model.values[2] = eight.values[2].clone();
    model.config["dynamic"] = serde_json::json!({"+:.*down_proj": {"bits": 8}});
    let adapter = run(&model).adapter("qera-out");
    assert_corrects(&adapter, &model);
    assert_eq!(
        adapter.layer(LAYERS[2].module)["quantizer"],
        "int8/16/f16/zero-points"
    );
}

/// Older programs say it in a file of its own, without a method.
#[test]
fn quantize_config_json_is_read() {
    let mut model = PackedModel::gptq(&weights(), PLAIN, 1, "gptq");
    model.config.as_object_mut().unwrap().remove("quant_method");
    let daemon = daemon_with_packed(BINARY, &model);
    let folder = daemon.path().join("packed");
    expect(
        &daemon.run(&ONCE),
        1,
        &["packed/config.json", "no quant_method"],
    );
    std::fs::write(folder.join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
    std::fs::write(
        folder.join("quantize_config.json"),
        model.config.to_string(),
    )
    .unwrap();
    expect(&daemon.run(&[&ONCE[..], &EXACT].concat()), 0, &[]);
    assert_corrects(&daemon.adapter("qera-out"), &model);
}

#[test]
fn plan_shows_how_far_each_weight_is() {
    let model = PackedModel::gptq(&weights(), PLAIN, 1, "gptq");
    let daemon = daemon_with_packed(BINARY, &model);
    let run = daemon.run(&[&["plan"], &ONCE[1..]].concat());
    assert_eq!(run.code, 0, "{}", run.log);
    for said in [
        "q_proj.qweight",
        "int4/16/f16/zero-points",
        "zero points stored-minus-one",
    ] {
        assert!(run.output.contains(said), "{said}: {}", run.output);
    }
}
