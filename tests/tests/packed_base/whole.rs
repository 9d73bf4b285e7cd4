//! Which layers are packed and which stay whole; that all of W~ is there either way.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use serde_json::json;

use crate::folder::BaseFolder;
use crate::model::{BLOCK, LAYERS, daemon_with_block, modules, run_both, run_once, write_model};

const CONFIG: &str = "checkpoint/config.json";

/// The packed base, once every weight of it was held against the plain one.
fn packed(daemon: &TestDaemon) -> BaseFolder {
    let out = daemon.path().join("qera-out");
    let packed = BaseFolder::open(&out.join("base-compressed-tensors"));
    let numbers = BaseFolder::open(&out.join("base"));
    for (name, tensor) in &numbers.tensors {
        match packed.tensors.get(name) {
            Some(whole) => assert_eq!(whole, tensor, "{name}"),
            None => {
                let module = name.strip_suffix(".weight").unwrap();
                assert!(packed.weight(module) == numbers.weight(module), "{name}");
            }
        }
    }
    packed
}

/// The layers that are not packed.
fn whole_of(packed: &BaseFolder) -> Vec<&'static str> {
    let whole = LAYERS.iter().filter(|layer| !packed.packs(&layer.module()));
    whole.map(|layer| layer.name).collect()
}

fn reason(packed: &BaseFolder, layer: &str) -> String {
    let whole = packed.record["packed"]["whole"].as_array().unwrap();
    let of = whole.iter().find(|of| of["layer"] == layer);
    of.unwrap()["reason"].as_str().unwrap().to_owned()
}

#[test]
fn everything_with_a_kernel_is_packed_and_the_rest_is_as_it_was() {
    let daemon = daemon_with_block();
    expect(&run_both(&daemon, &[]), 0, &["7 layers corrected"]);
    let packed = packed(&daemon);
    assert!(whole_of(&packed).is_empty());
    assert_eq!(packed.ignored(), ["lm_head"]);
    assert_eq!(packed.config["model_type"], "llama");
    let said = &packed.config["quantization_config"];
    assert_eq!(said["quant_method"], "compressed-tensors");
    assert_eq!(said["format"], "pack-quantized");
    assert_eq!(said["quantization_status"], "compressed");
    assert_eq!(
        said["config_groups"]["group_0"]["weights"],
        json!({"num_bits": 4, "type": "int", "symmetric": true, "strategy": "group",
            "group_size": 32, "dynamic": false, "actorder": null})
    );
    let out = daemon.path().join("qera-out");
    let tokenizer = fs::read_to_string(out.join("base-compressed-tensors/tokenizer.json"));
    assert_eq!(tokenizer.unwrap(), "{}");
    // Every tensor begins where its type may.
    let bytes = fs::read(out.join("base-compressed-tensors/model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (name, view) in file.tensors() {
        let begin = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
        assert_eq!(begin % (view.dtype().bitsize() / 8), 0, "{name}");
    }
    // The adapter is served on it.
    let adapter = daemon.adapter("qera-out");
    let path = adapter.config["base_model_name_or_path"].as_str().unwrap();
    assert!(path.ends_with("qera-out/base-compressed-tensors"), "{path}");
    let readme = fs::read_to_string(out.join("current/README.md")).unwrap();
    for said in [
        &format!("vllm serve {path} "),
        &format!(
            "from_pretrained(\"{}\")",
            path.replace("-compressed-tensors", "")
        ),
        &format!("`{path}` is packed as compressed-tensors"),
        // Never `current` for vLLM: under one name it would take a later generation for this one.
        &format!(
            "--lora-modules qera={}\n",
            out.join("generations/000001").display()
        ),
        &format!(
            "verify --adapter {} --base {path}",
            out.join("current").display()
        ),
    ] {
        assert!(readme.contains(said.as_str()), "{said}: {readme}");
    }
}

/// mlx-lm unpacks no folder of compressed-tensors.
#[test]
fn mlx_lm_is_not_sent_to_the_packed_folder() {
    let daemon = daemon_with_block();
    let options = ["--emit-base=compressed-tensors", "--format", "mlx"];
    expect(&run_once(&daemon, &options), 0, &[]);
    let path = daemon.path().join("qera-out/current/README.md");
    let readme = fs::read_to_string(path).unwrap();
    assert!(readme.contains("mlx_lm.server --model MODEL "), "{readme}");
}

#[test]
fn paths_with_blanks_are_commands_still() {
    let daemon = daemon_with_block();
    expect(&run_both(&daemon, &["--out", "my out"]), 0, &[]);
    let out = daemon.path().join("my out");
    let readme = fs::read_to_string(out.join("current/README.md")).unwrap();
    let path = |part: &str| out.join(part).display().to_string();
    let (packed, numbers) = (path("base-compressed-tensors"), path("base"));
    let (current, own) = (path("current"), path("generations/000001"));
    for said in [
        format!("vllm serve '{packed}' "),
        format!("--lora-modules qera='{own}'\n"),
        format!("--model-path '{packed}' "),
        format!("--lora-paths qera='{current}'\n"),
        format!("--base '{numbers}' '{current}'\n"),
        format!("from_pretrained(base, \"{current}\")"),
        format!("verify --adapter '{current}' --base '{packed}'`"),
    ] {
        assert!(readme.contains(&said), "{said}: {readme}");
    }
}

/// Without k, an engine's qkv_proj would be of two kinds.
#[test]
fn parts_of_a_fused_module_stay_whole_together() {
    for (option, whole) in [
        (
            "*.k_proj",
            &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"][..],
        ),
        ("*.up_proj", &["mlp.gate_proj", "mlp.up_proj"]),
        ("*.o_proj", &["self_attn.o_proj"]),
    ] {
        // A model that is not listed is taken by the names of its layers.
        for kind in ["llama", "somebody_s_own"] {
            let daemon = daemon_with_block();
            write_model(
                &daemon.path().join("checkpoint"),
                &json!({"model_type": kind, "tie_word_embeddings": false}).to_string(),
            );
            expect(&run_both(&daemon, &["--exclude", option]), 0, &[]);
            let packed = packed(&daemon);
            assert_eq!(whole_of(&packed), whole, "{option} {kind}");
            let expected = [&["lm_head".into()][..], &modules(whole)].concat();
            let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            expected.sort_unstable();
            assert_eq!(packed.ignored(), expected, "{option} {kind}");
            for layer in modules(whole) {
                if layer.ends_with(option.strip_prefix('*').unwrap()) {
                    continue;
                }
                let said = reason(&packed, &layer);
                assert!(said.contains("fuse it with modules"), "{said}");
            }
        }
    }
}

/// In groups of 64, the 96 inputs of down_proj are not a whole number of groups.
#[test]
fn a_shape_without_a_kernel_stays_whole_and_is_named() {
    let daemon = daemon_with_block();
    let options = ["--block-size", "64", "--log-format", "json"];
    let run = run_both(&daemon, &options);
    expect(
        &run,
        0,
        &[
            r#""event":"packed-base-written""#,
            r#""layers":6,"whole":1"#,
        ],
    );
    let packed = packed(&daemon);
    assert_eq!(whole_of(&packed), ["mlp.down_proj"]);
    let down = format!("{BLOCK}.mlp.down_proj");
    let said = "engines have no kernel for 96 in, 64 out in groups of 64";
    assert_eq!(reason(&packed, &down), said);
    let text = daemon
        .path()
        .join("qera-out/base-compressed-tensors/qera_base.md");
    let text = fs::read_to_string(text).unwrap();
    assert!(text.contains(&format!("- `{down}`: {said}")), "{text}");
    let manifest = daemon.adapter("qera-out").manifest;
    assert_eq!(manifest["packed_base"], packed.record["packed"]);
}

#[test]
fn heads_stay_whole_though_they_are_corrected() {
    let daemon = daemon_with_block();
    let config = r#"{"model_type": "llama", "tie_word_embeddings": false}"#;
    fs::write(daemon.path().join(CONFIG), config).unwrap();
    let rows = qera_tests::three_layers::sine_values(200 * 64, 3.0);
    let shard = qera_tests::safetensors_file::TensorToWrite::f32("lm_head", &[200, 64], &rows);
    let path = daemon.watched().join("head.safetensors");
    qera_tests::safetensors_file::write_safetensors(&path, &[shard], &[]);
    let options = ["--include", "lm_head", "--include", "*.o_proj"];
    expect(&run_both(&daemon, &options), 0, &["2 layers corrected"]);
    let packed = packed(&daemon);
    assert!(!packed.packs("lm_head") && packed.packs(&format!("{BLOCK}.self_attn.o_proj")));
    let said = reason(&packed, "lm_head");
    assert!(
        said.contains("output layers and embeddings stay whole"),
        "{said}"
    );
    // Modules that were not selected are as in the checkpoint.
    assert_eq!(packed.ignored().len(), LAYERS.len());
}

#[test]
fn of_8_bits_it_is_said_that_they_are_for_gpus() {
    let daemon = daemon_with_block();
    let options = ["--emit-base=compressed-tensors", "--quantizer", "mxint8"];
    expect(
        &run_once(&daemon, &options),
        0,
        &["packed base written", "on GPUs only", "base written: "],
    );
    let out = daemon.path().join("qera-out");
    assert!(!out.join("base").exists());
    let text = fs::read_to_string(out.join("base-compressed-tensors/qera_base.md")).unwrap();
    assert!(text.contains("8 bits on GPUs only"), "{text}");
    let adapter = daemon.adapter("qera-out");
    assert_eq!(adapter.manifest["packed_base"]["runs_on_cpus"], false);
    let readme = fs::read_to_string(out.join("current/README.md")).unwrap();
    assert!(
        readme.contains("--emit-base=hf,compressed-tensors"),
        "{readme}"
    );
}
