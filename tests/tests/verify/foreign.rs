//! Adapters of others, in PEFT's format.

use std::fs;
use std::path::Path;

use qera_tests::daemon::TestDaemon;
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use serde_json::json;

use super::BINARY;
use super::copied_adapter::{change_json, expect_holds, expect_problems, factor, verify};

const Q: &str = "model.layers.0.q_proj";
const PACKED: &str = "model.layers.1.q_proj";
const CONFIG: &str = "adapter/adapter_config.json";

fn pair(module: &str, b: f32) -> [TensorToWrite; 2] {
    [
        TensorToWrite::f16(&factor(module, 'A'), &[2, 8], &[0.5; 16]),
        TensorToWrite::f16(&factor(module, 'B'), &[6, 2], &[b; 12]),
    ]
}

fn write_adapter(folder: &Path, tensors: &[TensorToWrite]) {
    fs::create_dir_all(folder.join("adapter")).unwrap();
    write_safetensors(
        &folder.join("adapter/adapter_model.safetensors"),
        tensors,
        &[],
    );
    let config = json!({
        "auto_mapping": null, "base_model_name_or_path": "somebody/model", "bias": "none",
        "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true, "lora_alpha": 16,
        "lora_dropout": 0.05, "modules_to_save": null, "peft_type": "LORA", "r": 2, "revision": null,
        "target_modules": ["q_proj", "not_in_this_model"], "task_type": "CAUSAL_LM", "use_dora": false,
    });
    fs::write(folder.join(CONFIG), config.to_string()).unwrap();
}

/// A model whose layer 1 was quantized by others, and an adapter on both of its layers.
fn trained() -> TestDaemon {
    let daemon = TestDaemon::new(BINARY);
    fs::create_dir(daemon.path().join("model")).unwrap();
    let tensors = [
        TensorToWrite::bf16(&format!("{Q}.weight"), &[6, 8], &[1.0; 48]),
        TensorToWrite::u8(&format!("{PACKED}.qweight"), &[24], &[1; 24]),
        TensorToWrite::bf16("model.norm.weight", &[8], &[1.0; 8]),
    ];
    write_safetensors(
        &daemon.path().join("model/model.safetensors"),
        &tensors,
        &[],
    );
    write_adapter(daemon.path(), &[pair(Q, 0.25), pair(PACKED, 0.25)].concat());
    daemon
}

const ON_MODEL: [&str; 2] = ["--base", "model"];

#[test]
fn an_adapter_by_peft_is_checked_as_far_as_it_can_be() {
    let daemon = trained();
    expect_holds(
        &verify(&daemon, &ON_MODEL),
        &[
            "2 layers of rank 2, on model",
            "note: adapter_config.json: 'not_in_this_model' of target_modules means no module",
            "not checked: model.layers.1.q_proj: its shape, model stores 'model.layers.1.q_proj.qweight'",
        ],
    );
    let without = verify(&daemon, &[]);
    expect_holds(
        &without,
        &["not checked: whether names and shapes", "somebody/model"],
    );
}

#[test]
fn names_have_to_be_those_of_the_base() {
    let daemon = trained();
    let tensors = [pair(PACKED, 0.25), pair("layers.0.q_proj", 0.25)].concat();
    write_adapter(daemon.path(), &tensors);
    expect_problems(
        &verify(&daemon, &ON_MODEL),
        &[
            "also means model.layers.0.q_proj, which has no tensors",
            "model has no 'layers.0.q_proj.weight'; it has 'model.layers.0.q_proj.weight'",
        ],
    );
}

#[test]
fn zeros_are_said_and_nothing_but_zeros_fails() {
    let daemon = trained();
    write_adapter(daemon.path(), &[pair(Q, 0.25), pair(PACKED, 0.0)].concat());
    let said =
        "note: adapter_model.safetensors: model.layers.1.q_proj: B is all zero: it changes nothing";
    expect_holds(&verify(&daemon, &ON_MODEL), &[said]);
    write_adapter(daemon.path(), &[pair(Q, 0.0), pair(PACKED, 0.0)].concat());
    expect_problems(
        &verify(&daemon, &ON_MODEL),
        &["every pair is zero: the adapter changes nothing"],
    );
}

#[test]
fn magnitudes_of_dora_are_not_looked_at() {
    let daemon = trained();
    let magnitude = "base_model.model.model.layers.0.q_proj.lora_magnitude_vector";
    let magnitude = [TensorToWrite::f32(magnitude, &[6], &[1.0; 6])];
    write_adapter(
        daemon.path(),
        &[&pair(Q, 0.25)[..], &pair(PACKED, 0.25), &magnitude].concat(),
    );
    expect_problems(
        &verify(&daemon, &ON_MODEL),
        &["lora_magnitude_vector' is neither"],
    );
    change_json(&daemon, CONFIG, |config| config["use_dora"] = true.into());
    expect_holds(
        &verify(&daemon, &ON_MODEL),
        &["not checked: adapter_config.json: use_dora"],
    );
}
