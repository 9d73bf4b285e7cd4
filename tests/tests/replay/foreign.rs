//! Adapters of others: how A B is scaled, and what is more than A B.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::{DOWN, K, Q, daemon_with_shards, once_with, sine_values};
use serde_json::{Value, json};

use crate::BINARY;
use crate::manifest::rows_of;
use crate::oracle::{Factors, numbers, peft_factors};
use crate::replayed::{Replayed, replay};

/// Widths of the layers, and the rank that somebody trained.
const TRAINED: [(&str, usize, usize, usize); 3] = [(Q, 6, 8, 2), (K, 4, 8, 4), (DOWN, 8, 12, 2)];

/// A base of qera's, and in `adapter` small factors with this configuration beside the usual one.
fn trained(config: &Value) -> TestDaemon {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&["--emit-base"])), 0, &[]);
    let tensors = TRAINED.iter().flat_map(|&(layer, n, m, rank)| {
        let name = |factor| format!("base_model.model.{layer}.lora_{factor}.weight");
        let small = |count, phase| -> Vec<f32> {
            sine_values(count, phase).iter().map(|v| v * 1e-2).collect()
        };
        [
            TensorToWrite::f32(&name('A'), &[rank, m], &small(rank * m, 0.1)),
            TensorToWrite::bf16(&name('B'), &[n, rank], &small(n * rank, 0.7)),
        ]
    });
    let folder = daemon.path().join("adapter");
    fs::create_dir(&folder).unwrap();
    let tensors: Vec<_> = tensors.collect();
    write_safetensors(&folder.join("adapter_model.safetensors"), &tensors, &[]);
    let mut whole = json!({
        "peft_type": "LORA", "r": 2, "lora_alpha": 16, "bias": "none", "use_dora": false,
        "fan_in_fan_out": false, "target_modules": ["q_proj", "k_proj", "down_proj"],
        "rank_pattern": {"k_proj": 4},
    });
    let fields = config.as_object().unwrap().clone();
    whole.as_object_mut().unwrap().extend(fields);
    fs::write(folder.join("adapter_config.json"), whole.to_string()).unwrap();
    daemon
}

fn assert_scaled(daemon: &TestDaemon, replayed: &Replayed, layer: &str, scale: f64) {
    let tensor = format!("{layer}.weight");
    let at = |file: &str| daemon.path().join(file);
    let weight = numbers(&at("checkpoint/model.safetensors"), &tensor);
    let quantized = numbers(&at("qera-out/base/model.safetensors"), &tensor);
    let factors: Factors = peft_factors(&at("adapter"), layer, scale);
    replayed.assert_figures(
        layer,
        &rows_of(layer).expected(&weight, &quantized, &factors),
    );
}

#[test]
fn a_b_is_scaled_as_peft_scales_it() {
    for (config, scales) in [
        (json!({}), [8.0, 4.0, 8.0]),
        (
            json!({"use_rslora": true}),
            [16.0 / 2.0_f64.sqrt(), 8.0, 16.0 / 2.0_f64.sqrt()],
        ),
        (
            json!({"alpha_pattern": {"k_proj": 2, "^model.layers.0.mlp.down_proj": 1}}),
            [8.0, 0.5, 0.5],
        ),
        // What it is served on decides how weights lie: nn.Linear takes the flag back.
        (json!({"lora_alpha": -3}), [-1.5, -0.75, -1.5]),
    ] {
        let daemon = trained(&config);
        let replayed = replay(&daemon, "adapter", &["--base", "qera-out/base"]);
        for (layer, scale) in [Q, K, DOWN].into_iter().zip(scales) {
            assert_scaled(&daemon, &replayed, layer, scale);
            let said = replayed.layer(layer);
            assert_eq!(
                (&said["verdict"], &said["manifest"]),
                (&"nothing-said".into(), &Value::Null)
            );
        }
        // What was trained for something else is no correction: it is for its owner to judge.
        let harmed = replayed
            .layers()
            .iter()
            .filter(|layer| layer["harm"] == true);
        let harmed = harmed.count();
        let problems = replayed.lines("problems");
        assert_eq!(problems.len(), harmed, "{problems:#?}");
        assert!(problems.iter().all(|line| line.contains("does harm")));
    }
}

#[test]
fn what_is_not_understood_is_not_guessed() {
    let daemon = trained(&json!({"alpha_pattern": {".*q_proj": 3}}));
    let replayed = replay(&daemon, "adapter", &["--base", "qera-out/base"]);
    let unchecked = replayed.lines("not_checked");
    for layer in [Q, K, DOWN] {
        let said = format!("replay: {layer}: what A B is multiplied by is not known");
        assert!(
            unchecked.iter().any(|line| line.starts_with(&said)),
            "{unchecked:#?}"
        );
    }
    replayed.assert_problems(&["no layer of the peft adapter was replayed"]);

    let daemon = trained(&json!({"use_dora": true}));
    let replayed = replay(&daemon, "adapter", &["--base", "qera-out/base"]);
    let unchecked = replayed.lines("not_checked");
    assert!(
        unchecked
            .iter()
            .any(|line| line.ends_with("DoRA: the magnitudes beside A and B are not replayed")),
        "{unchecked:#?}"
    );
    replayed.assert_problems(&["no layer of the peft adapter was replayed"]);
}
