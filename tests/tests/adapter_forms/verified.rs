//! `verify` of a generation, of one form of it, and of what others made.

use std::fs;

use crate::{BINARY, current, once, write_config};
use qera_tests::daemon::{EndedRun, TestDaemon, expect, expect_verdict};
use qera_tests::gguf_file::{GgufTensorToWrite, GgufToWrite};
use qera_tests::gguf_lora::GgufLora;
use qera_tests::gguf_model::{LAYERS, daemon_with_gguf, empty_model, quantized_model};
use qera_tests::output_folder::unseal;
use serde_json::{Value, json};

const CURRENT: &str = "qera-out/current";
const Q: &str = "blk.0.attn_q.weight";

/// Publishes a generation in these forms.
fn published(forms: &str) -> TestDaemon {
    let daemon = daemon_with_gguf(BINARY);
    let given = ["--checkpoint", "checkpoint", "--quantized", "model.gguf"];
    let run = once(&daemon, &[&given[..], &["--format", forms]].concat());
    expect(&run, 0, &[]);
    daemon
}

/// What is asked is what files say, not whether they are those that were written.
fn verify(daemon: &TestDaemon, adapter: &str, more: &[&str]) -> EndedRun {
    unseal(&daemon.path().join(CURRENT));
    daemon.run(&[&["verify", "--adapter", adapter], more].concat())
}

/// Writes a JSON file of the current generation anew.
fn edit(daemon: &TestDaemon, file: &str, change: impl FnOnce(&mut Value)) {
    let path = current(daemon, file);
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn one_form_of_a_generation_is_held_against_its_manifest_and_the_model() {
    let daemon = published("peft,gguf,mlx");
    for (form, said) in [
        ("", "3 layers of rank 4 as peft, gguf, mlx, on /"),
        ("/adapter.gguf", "3 layers of rank 4 as gguf, on /"),
        ("/mlx", "3 layers of rank 4 as mlx, on /"),
    ] {
        let form = format!("{CURRENT}{form}");
        let run = verify(&daemon, &form, &[]);
        expect_verdict(&run, 0, &[said]);
        assert!(!run.output.contains("not checked"), "{}", run.output);
        let other = verify(&daemon, &form, &["--base", "full.gguf"]);
        expect_verdict(&other, 1, &["another file"]);
    }
}

#[test]
fn a_file_alone_is_held_against_a_gguf() {
    let daemon = published("gguf");
    let copy = daemon.path().join("x.gguf");
    fs::copy(current(&daemon, "adapter.gguf"), copy).unwrap();
    let bare = verify(&daemon, "x.gguf", &[]);
    let said = "not checked: whether names and shapes are those of the model: nothing says";
    expect_verdict(&bare, 0, &[said, "as gguf, on no model"]);
    let on = verify(&daemon, "x.gguf", &["--base", "model.gguf"]);
    expect_verdict(&on, 0, &["as gguf, on model.gguf"]);
    // A GGUF of another kind of model, and one without a layer.
    let mut tensors = quantized_model().tensors;
    tensors.remove(0);
    let qwen = GgufToWrite::model("qwen2", 2, 1);
    let other = tensors.into_iter().fold(qwen, GgufToWrite::tensor);
    other.write(&daemon.path().join("qwen2.gguf"));
    let run = verify(&daemon, "x.gguf", &["--base", "qwen2.gguf"]);
    let said = [
        "its general.architecture is 'llama', qwen2.gguf is a 'qwen2'",
        "qwen2.gguf has no tensor 'blk.0.attn_q.weight'",
    ];
    expect_verdict(&run, 1, &said);
}

/// Copies the GGUF of an output folder to where nothing else lies.
fn lone(daemon: &TestDaemon, out: &str) {
    let file = daemon.path().join(out).join("current/adapter.gguf");
    fs::create_dir_all(daemon.path().join("alone")).unwrap();
    fs::copy(file, daemon.path().join("alone/x.gguf")).unwrap();
}

#[test]
fn a_file_alone_is_held_against_its_own_keys() {
    let daemon = published("gguf");
    lone(&daemon, "qera-out");
    let on = |base: &str| verify(&daemon, "alone/x.gguf", &["--base", base]);
    let own = on("model.gguf");
    expect_verdict(&own, 0, &["holds: "]);
    assert!(!own.output.contains("not checked"), "{}", own.output);
    expect_verdict(
        &on("full.gguf"),
        1,
        &["full.gguf: is another file (blake3:"],
    );
    // On a base of ours, which its record tells.
    write_config(&daemon);
    for (out, quantizer) in [("a", "mxint4"), ("b", "mxint3")] {
        let options = [
            "--checkpoint",
            "checkpoint",
            "--emit-base",
            "--format",
            "gguf",
        ];
        let more = ["--quantizer", quantizer, "--out", out];
        expect(&once(&daemon, &[&options[..], &more].concat()), 0, &[]);
    }
    lone(&daemon, "a");
    expect_verdict(&on("a/base"), 0, &["holds: "]);
    let said = "b/base: its base is blake3:";
    expect_verdict(
        &on("b/base"),
        1,
        &[said, "qera.fingerprints.base of x.gguf is"],
    );
    let said = "checkpoint: is the model in full precision by qera.fingerprints.model of x.gguf";
    expect_verdict(&on("checkpoint"), 1, &[said]);
    // The same in another generation, of which no digests are known.
    let from = daemon.path().join("b/current/adapter.gguf");
    let to = daemon.path().join("a/current");
    unseal(&to);
    fs::copy(from, to.join("adapter.gguf")).unwrap();
    let said = "adapter.gguf: qera.fingerprints.base is blake3:";
    let run = verify(&daemon, "a/current", &[]);
    expect_verdict(&run, 1, &[said, "it is the file of another adapter"]);
}

/// W~ of `OUT/base`, as a converter makes a GGUF of it; q is called so.
fn write_served(daemon: &TestDaemon, file: &str, changed: Option<&str>) {
    let base = fs::read(daemon.path().join("qera-out/base/model.safetensors")).unwrap();
    let base = safetensors::SafeTensors::deserialize(&base).unwrap();
    let model = LAYERS.iter().fold(empty_model(), |model, layer| {
        let tensor = base.tensor(&format!("{}.weight", layer.module)).unwrap();
        let words = tensor.data().chunks(4);
        let mut values: Vec<f32> = words
            .map(|word| f32::from_le_bytes(word.try_into().unwrap()))
            .collect();
        if changed == Some(layer.tensor) {
            values = layer.weight();
        }
        let name = format!("{}.weight", layer.tensor);
        let ne = [layer.in_features, layer.out_features];
        let values = layer.in_gguf_order(&values);
        model.tensor(GgufTensorToWrite::f32(&name, &ne, &values))
    });
    model.write(&daemon.path().join(file));
}

/// The generation's README tells how such a file is made.
#[test]
fn a_gguf_that_was_made_of_the_base_is_held_against_the_grid() {
    let daemon = daemon_with_gguf(BINARY);
    write_config(&daemon);
    let options = [
        "--checkpoint",
        "checkpoint",
        "--format",
        "peft,gguf",
        "--emit-base",
    ];
    expect(&once(&daemon, &options), 0, &[]);
    write_served(&daemon, "served.gguf", None);
    for adapter in [CURRENT, "qera-out/current/adapter.gguf"] {
        let run = verify(&daemon, adapter, &["--base", "served.gguf"]);
        let said = "not checked: served.gguf: whether it was made of the adapter's checkpoint";
        expect_verdict(&run, 0, &[said, "on served.gguf"]);
        let run = verify(&daemon, adapter, &["--base", "full.gguf"]);
        let said = "full.gguf: 'model.layers.0.mlp.down_proj.weight' is not quantized by mxint";
        expect_verdict(&run, 1, &[said]);
    }
    // One layer in full precision, whose rows lie in another order there.
    write_served(&daemon, "half.gguf", Some("blk.0.attn_k"));
    let run = verify(&daemon, CURRENT, &["--base", "half.gguf"]);
    let said = "half.gguf: 'model.layers.0.self_attn.k_proj.weight' is not quantized by mxint";
    expect_verdict(&run, 1, &[said]);
    assert_eq!(
        run.output.matches("not quantized").count(),
        1,
        "{}",
        run.output
    );
    // Heads that are others.
    let other = LAYERS
        .iter()
        .fold(GgufToWrite::model("llama", 4, 2), |model, layer| {
            model.tensor(layer.coarse(&layer.weight()))
        });
    other.write(&daemon.path().join("other.gguf"));
    let run = verify(&daemon, CURRENT, &["--base", "other.gguf"]);
    expect_verdict(
        &run,
        1,
        &["adapter.gguf: blk.0.attn_q.weight: its rows lie in the order RopePairs"],
    );
}

#[test]
fn forms_that_differ_are_told() {
    let daemon = published("peft,gguf,mlx");
    let expect_changed = |file: &str, bytes: &[u8], said: &str| {
        let path = current(&daemon, file);
        let whole = fs::read(&path).unwrap();
        assert_ne!(whole, bytes);
        fs::write(&path, bytes).unwrap();
        expect_verdict(&verify(&daemon, CURRENT, &[]), 1, &[said]);
        fs::write(&path, whole).unwrap();
        expect_verdict(&verify(&daemon, CURRENT, &[]), 0, &["holds: "]);
    };
    let path = current(&daemon, "adapter.gguf");
    let b = GgufLora::load(&path).tensors[&format!("{Q}.lora_b")].start;
    let mut bytes = fs::read(&path).unwrap();
    // The first two rows of B in each other's place.
    bytes[b..b + 16].rotate_left(8);
    let q = "model.layers.0.self_attn.q_proj: its numbers in the form gguf differ from those in the form peft";
    expect_changed("adapter.gguf", &bytes, q);
    let mlx = "mlx/adapters.safetensors";
    let mut bytes = fs::read(current(&daemon, mlx)).unwrap();
    *bytes.last_mut().unwrap() ^= 0x80;
    let said = "its numbers in the form mlx differ from those in the form peft";
    expect_changed(mlx, &bytes, said);
    fs::remove_file(&path).unwrap();
    let said = "qera_manifest.json: says that the adapter is written as gguf, which is not there";
    expect_verdict(&verify(&daemon, CURRENT, &[]), 1, &[said]);
}

#[test]
fn a_manifest_that_places_rows_elsewhere_is_told() {
    let daemon = published("gguf");
    let order = |rows: Value| {
        edit(&daemon, "qera_manifest.json", |manifest| {
            let layers = manifest["layers"].as_array_mut().unwrap().iter_mut();
            let mut places = layers.map(|layer| &mut layer["gguf"]);
            let place = places.find(|of| of["tensor"] == Q).unwrap();
            assert!(place["rows"]["rope-pairs"]["head"].is_u64(), "{place}");
            place["rows"] = rows;
        });
        verify(&daemon, CURRENT, &[])
    };
    let own = order(json!({"rope-pairs": {"head": 8}}));
    expect_verdict(&own, 0, &[]);
    let other = order(json!({"rope-pairs": {"head": 4}}));
    let said = "adapter.gguf: blk.0.attn_q.weight: its rows lie in the order RopePairs { head: 4 }";
    expect_verdict(&other, 1, &[said, "RopePairs { head: 8 }"]);
    for head in [0, 3, 5, u64::MAX] {
        let run = order(json!({"rope-pairs": {"head": head}}));
        let said = "blk.0.attn_q.weight: its 16 rows of B do not fit the order RopePairs";
        expect_verdict(&run, 1, &[said]);
    }
}

#[test]
fn what_mlx_lm_would_refuse_or_scale_is_told() {
    type Change = fn(&mut Value);
    let changes: [(Change, &str); 5] = [
        (
            |c| c["lora_parameters"]["scale"] = 20.into(),
            "scale is 20, qera",
        ),
        (
            |c| c["lora_parameters"]["keys"] = json!(["self_attn.q_proj", "mlp.down_proj"]),
            "neither keys nor num_layers reach model.layers.0.self_attn.k_proj",
        ),
        (
            |c| c["lora_parameters"]["rank"] = 8.into(),
            "its pair has rank 4, mlx/adapter_config.json says 8",
        ),
        (|c| c["num_layers"] = Value::Null, "num_layers is null"),
        (
            |c| c["fine_tune_type"] = "full".into(),
            "fine_tune_type is 'full'",
        ),
    ];
    let daemon = published("mlx");
    let config = "mlx/adapter_config.json";
    let whole = fs::read(current(&daemon, config)).unwrap();
    for (change, said) in changes {
        edit(&daemon, config, change);
        expect_verdict(&verify(&daemon, CURRENT, &[]), 1, &[said]);
        fs::write(current(&daemon, config), &whole).unwrap();
    }
    expect_verdict(&verify(&daemon, CURRENT, &[]), 0, &[]);
}
