//! Damaged configurations.

use qera_tests::three_layers::{DOWN, K, Q};
use serde_json::{Value, json};

use super::copied_adapter::{
    change_json, change_tensors, copy_adapter, expect_holds, expect_problems, factor, published,
    tensor, tensors_path, verify,
};

const CONFIG: &str = "adapter/adapter_config.json";

fn check(key: &str, value: &Value, said: &[&str]) {
    let daemon = published(&[]);
    change_json(&daemon, CONFIG, |config| config[key] = value.clone());
    let run = verify(&daemon, &[]);
    expect_problems(&run, said);
}

#[test]
fn target_modules_that_are_too_wide_or_too_narrow_are_named() {
    check(
        "target_modules",
        &json!(["q_proj", "k_proj", "down_proj", "embed_tokens", "0"]),
        &[
            "'embed_tokens' of target_modules also means model.embed_tokens, which has no tensors",
            "'0' of target_modules also means model.layers.0, which has no tensors",
        ],
    );
    check(
        "target_modules",
        &json!(["q_proj", "0.self_attn.k_proj", "up_proj"]),
        &[
            "no entry of target_modules means model.layers.0.mlp.down_proj,",
            "'up_proj' of target_modules means no module",
        ],
    );
    check("target_modules", &json!(7), &["target_modules is 7"]);
}

#[test]
fn ranks_and_scales_are_held_against_the_tensors() {
    check(
        "r",
        &json!(3),
        &[
            "q_proj: its pair has rank 2, adapter_config.json says 3",
            "k_proj: its pair has rank 2",
            "down_proj: its pair has rank 2",
            "q_proj: lora_alpha and r scale its correction by 0.6666666666666666",
            "k_proj: lora_alpha and r scale",
            "down_proj: lora_alpha and r scale",
        ],
    );
    check(
        "alpha_pattern",
        &json!({"q_proj": 1}),
        &["q_proj: lora_alpha and r scale its correction by 0.5"],
    );
    let daemon = published(&["--dtype", "f32"]);
    change_tensors(&tensors_path(&daemon), |tensors| {
        for of in ['A', 'B'] {
            let tensor = tensor(tensors, &factor(Q, of));
            tensor.bytes.extend(tensor.bytes.clone());
            tensor.shape = if of == 'A' { vec![4, 8] } else { vec![6, 4] };
        }
    });
    change_json(&daemon, CONFIG, |config| {
        config["rank_pattern"] = json!({"self_attn.q_proj": 4});
        config["alpha_pattern"] = json!({"q_proj": 4});
    });
    expect_holds(&verify(&daemon, &[]), &["3 layers of rank 4"]);
}

#[test]
fn the_kind_of_adapter_is_checked() {
    check("peft_type", &json!("LOHA"), &["peft_type is 'LOHA'"]);
    check("bias", &json!("lora_only"), &["bias is \"lora_only\""]);
    check(
        "fan_in_fan_out",
        &json!(true),
        &[
            "q_proj: A and B fit [8, 6] (fan_in_fan_out is set)",
            "k_proj: A and B fit [8, 4]",
            "down_proj: A and B fit [12, 8]",
        ],
    );
}

#[test]
fn what_is_not_understood_is_said() {
    let daemon = published(&[]);
    for (key, value, said) in [
        (
            "target_modules",
            json!(".*_proj"),
            "target_modules '.*_proj'",
        ),
        ("of_next_year", json!(1), "of_next_year"),
    ] {
        copy_adapter(&daemon);
        change_json(&daemon, CONFIG, |config| config[key] = value);
        let said = format!("not checked: adapter_config.json: {said}");
        expect_holds(&verify(&daemon, &[]), &[&said]);
    }
}

/// A layer that is left out does not lend its last name to the adapter.
#[test]
fn full_names_are_used_where_a_last_name_means_more() {
    let daemon = published(&["--exclude", K, "--exclude", DOWN]);
    expect_holds(&verify(&daemon, &[]), &["1 layers"]);
    change_json(&daemon, CONFIG, |config| {
        config["target_modules"] = json!(["q_proj", "k_proj"]);
    });
    let said = "'k_proj' of target_modules also means model.layers.0.self_attn.k_proj,";
    expect_problems(&verify(&daemon, &[]), &[said]);
}
