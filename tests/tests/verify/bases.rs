//! The model that an adapter is held against: the right one, another one, none.

use std::fs;

use qera_tests::copied_folder::copy_folder;
use qera_tests::daemon::expect;
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{
    DOWN, K, Q, daemon_with_shards, once_with, sine_values, write_checkpoint,
};

use serde_json::json;

use super::BINARY;
use super::copied_adapter::{
    change_json, change_tensors, expect_holds, expect_problems, published, tensor, tensors_path,
    verify,
};

const RECORD: &str = "other/qera_base.json";
const ON_OTHER: [&str; 2] = ["--base", "other"];

#[test]
fn the_base_is_found_by_its_name_beside_the_generation_or_by_the_option() {
    let daemon = published(&[]);
    expect_holds(&verify(&daemon, &[]), &["qera-out/base"]);
    let readme = fs::read_to_string(daemon.path().join("adapter/README.md")).unwrap();
    let said = "`qera-daemon verify --adapter ";
    assert!(
        readme.contains(said) && readme.contains(" --base "),
        "{readme}"
    );
    let moved = daemon.path().join("elsewhere");
    fs::rename(daemon.path().join("qera-out"), &moved).unwrap();
    let beside = daemon.run(&["verify", "--adapter", "elsewhere/current"]);
    expect_holds(&beside, &["elsewhere/base"]);
    expect_holds(&verify(&daemon, &["--base", "elsewhere/base"]), &[]);
    let missing = verify(&daemon, &[]);
    expect_problems(&missing, &["qera-out/base (blake3:"]);
    expect_problems(&verify(&daemon, &["--base", "nowhere"]), &["nowhere"]);
}

/// On the full-precision weights the correction does harm.
#[test]
fn the_full_precision_checkpoint_is_refused() {
    let daemon = published(&[]);
    let run = verify(&daemon, &["--base", "checkpoint"]);
    let said = "is not quantized by mxint4/4: the correction would do harm";
    expect_problems(
        &run,
        &[
            &format!("checkpoint: '{Q}.weight' {said}"),
            &format!("'{K}.weight' {said}"),
            &format!("down_proj.weight' {said}"),
        ],
    );
    assert!(
        run.output
            .contains("not checked: checkpoint: whether it was made"),
        "{}",
        run.output
    );
    // The quantized weights without their record may be what the engine has.
    copy_folder(
        &daemon.path().join("qera-out/base"),
        &daemon.path().join("other"),
    );
    fs::remove_file(daemon.path().join(RECORD)).unwrap();
    expect_holds(&verify(&daemon, &ON_OTHER), &["it has no qera_base.json"]);
}

#[test]
fn another_base_is_named_by_what_differs() {
    let daemon = published(&[]);
    let fresh = || {
        let (base, other) = (
            daemon.path().join("qera-out/base"),
            daemon.path().join("other"),
        );
        copy_folder(&base, &other);
    };
    fresh();
    change_json(&daemon, RECORD, |record| {
        record["others"] = "blake3:0".into()
    });
    let run = verify(&daemon, &ON_OTHER);
    expect_problems(&run, &["tensors beside the quantized ones"]);
    assert!(!run.output.contains("is damaged"), "{}", run.output);
    change_json(&daemon, RECORD, |record| {
        record["quantizer"] = "mxint3/4".into();
        record["checkpoint"] = "blake3:1".into();
        record["layers"]
            .as_array_mut()
            .unwrap()
            .retain(|name| name != Q);
    });
    expect_problems(
        &verify(&daemon, &ON_OTHER),
        &[
            "is quantized by mxint3/4, the adapter corrects mxint4/4",
            "was quantized from the weights blake3:1, and the adapter corrects blake3:",
            "q_proj is not among its quantized layers",
        ],
    );
    fs::write(daemon.path().join(RECORD), "[]").unwrap();
    expect_problems(
        &verify(&daemon, &ON_OTHER),
        &["qera_base.json: cannot be read"],
    );
    fresh();
    change_tensors(&daemon.path().join("other/model.safetensors"), |tensors| {
        let q = tensor(tensors, &format!("{Q}.weight"));
        *q = TensorToWrite::f32(&q.name, &[6, 8], &sine_values(48, 0.0));
        tensors.retain(|tensor| tensor.name != format!("{K}.weight"));
    });
    expect_problems(
        &verify(&daemon, &ON_OTHER),
        &[
            &format!("'{Q}.weight' is not quantized"),
            &format!("other has no '{K}.weight'"),
            "'k_proj' of target_modules means no module",
        ],
    );
}

/// The adapter has the names of the class that serves it, the base those of the checkpoint.
#[test]
fn names_on_both_sides_are_joined_by_the_manifest() {
    let daemon = published(&[]);
    let served = |name: &str| name.replacen("model.", "wrapped.model.", 1);
    change_tensors(&tensors_path(&daemon), |tensors| {
        for tensor in tensors {
            let inner = tensor.name.strip_prefix("base_model.model.").unwrap();
            tensor.name = format!("base_model.model.wrapped.{inner}");
        }
    });
    let said = format!("has no 'wrapped.{K}.weight'; it has '{K}.weight'");
    let run = verify(&daemon, &[]);
    assert!(
        run.code == 1 && run.output.contains(&said),
        "{}",
        run.output
    );
    change_json(&daemon, "adapter/qera_manifest.json", |manifest| {
        for layer in manifest["layers"].as_array_mut().unwrap() {
            layer["served_as"] = served(layer["name"].as_str().unwrap()).into();
        }
    });
    expect_holds(&verify(&daemon, &[]), &[]);
    change_json(&daemon, "adapter/adapter_config.json", |config| {
        let names = [
            "q_proj",
            "k_proj",
            "down_proj",
            "wrapped.model.embed_tokens",
        ];
        config["target_modules"] = json!(names);
        config["base_model_name_or_path"] = json!(null);
    });
    let said =
        "'wrapped.model.embed_tokens' of target_modules also means wrapped.model.embed_tokens";
    expect_problems(&verify(&daemon, &["--base", "qera-out/base"]), &[said]);
}

/// Weights stored [in_features, out_features]: the blocks run along the first axis.
#[test]
fn a_transposed_base_needs_fan_in_fan_out() {
    let daemon = published(&[]);
    let (base, other) = (
        daemon.path().join("qera-out/base"),
        daemon.path().join("other"),
    );
    copy_folder(&base, &other);
    change_tensors(&other.join("model.safetensors"), |tensors| {
        for module in [Q, K, DOWN] {
            let tensor = tensor(tensors, &format!("{module}.weight"));
            let (n, m) = (tensor.shape[0], tensor.shape[1]);
            let at = |i: usize, j: usize| &tensor.bytes[2 * (i * m + j)..][..2];
            let across = (0..m).flat_map(|j| (0..n).flat_map(move |i| at(i, j)));
            let bytes = across.copied().collect();
            *tensor = TensorToWrite::new(&tensor.name, "BF16", &[m, n], bytes);
        }
    });
    let run = verify(&daemon, &ON_OTHER);
    expect_problems(
        &run,
        &[
            "A and B fit [6, 8]",
            "A and B fit [4, 8]",
            "A and B fit [8, 12]",
        ],
    );
    change_json(&daemon, "adapter/adapter_config.json", |config| {
        config["fan_in_fan_out"] = true.into();
    });
    expect_holds(&verify(&daemon, &ON_OTHER), &[]);
    change_tensors(&other.join("model.safetensors"), |tensors| {
        let q = tensor(tensors, &format!("{Q}.weight"));
        *q = TensorToWrite::f32(&q.name, &[8, 6], &sine_values(48, 0.0));
    });
    expect_problems(
        &verify(&daemon, &ON_OTHER),
        &[&format!("'{Q}.weight' is not quantized")],
    );
}

/// An adapter that was published without a base fits one of the same checkpoint only.
#[test]
fn a_base_that_came_later_has_to_be_of_the_same_checkpoint() {
    let daemon = daemon_with_shards(BINARY);
    let run = |more: &[&str]| expect(&daemon.run(&once_with(more)), 0, &["generation 1"]);
    run(&["--out", "bare"]);
    copy_folder(
        &daemon.path().join("bare/current"),
        &daemon.path().join("adapter"),
    );
    expect_holds(
        &verify(&daemon, &[]),
        &["not checked: whether names and shapes"],
    );
    run(&["--emit-base", "--out", "later"]);
    expect_holds(&verify(&daemon, &["--base", "later/base"]), &["later/base"]);
    write_checkpoint(&daemon.path().join("checkpoint"), &sine_values(48, 0.5));
    run(&["--emit-base", "--out", "others"]);
    expect_problems(
        &verify(&daemon, &["--base", "others/base"]),
        &["was quantized from the weights"],
    );
}
