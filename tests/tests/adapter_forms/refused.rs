//! What a form cannot hold is refused by name, before a row is read.

use std::fs;

use crate::{BINARY, once, write_config};
use qera_tests::daemon::expect;
use qera_tests::gguf_model::{GgufTestLayer, LAYERS, daemon_with_gguf};
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};

const GIVEN: [&str; 4] = ["--checkpoint", "checkpoint", "--quantized", "model.gguf"];

#[test]
fn a_model_of_a_kind_that_a_form_does_not_list() {
    let daemon = daemon_with_gguf(BINARY);
    let config = daemon.path().join("checkpoint/config.json");
    for (text, form, said) in [
        (
            r#"{"model_type":"apertus"}"#,
            "gguf",
            "--format gguf: what a GGUF calls the layers of 'apertus' is not known",
        ),
        (
            "{}",
            "gguf",
            "--format gguf: what a GGUF calls the layers of a model whose config.json does not say",
        ),
        (
            r#"{"model_type":"falcon"}"#,
            "peft,mlx",
            "--format mlx: what mlx-lm calls the layers of 'falcon' is not known",
        ),
    ] {
        fs::write(&config, text).unwrap();
        let options = ["--checkpoint", "checkpoint", "--format", form];
        expect(&once(&daemon, &options), 2, &[said, "out of --format"]);
        // Before anything is waited for.
        let plan = ["plan", "--watch", "activations"];
        expect(&daemon.run(&[&plan[..], &options].concat()), 2, &[said]);
    }
    assert!(!daemon.path().join("qera-out/generations").exists());
}

#[test]
fn rows_whose_order_the_configuration_does_not_tell() {
    let daemon = daemon_with_gguf(BINARY);
    let (q, k) = (LAYERS[0].module, LAYERS[1].module);
    let config = daemon.path().join("checkpoint/config.json");
    for (text, module, said) in [
        (
            r#"{"model_type":"llama"}"#,
            k,
            "the order of its rows depends on the number of heads, and config.json has no",
        ),
        (
            r#"{"model_type":"llama","num_attention_heads":3,"num_key_value_heads":1}"#,
            q,
            "its 16 rows are not 3 heads",
        ),
    ] {
        fs::write(&config, text).unwrap();
        let options = ["--checkpoint", "checkpoint", "--format", "gguf"];
        let said = format!("--format gguf: '{module}': {said}");
        expect(&once(&daemon, &options), 2, &[&said]);
        assert!(!daemon.path().join("qera-out/generations/000001").exists());
    }
    // If the model is a GGUF, its metadata name the architecture.
    fs::write(&config, r#"{"model_type":"llama"}"#).unwrap();
    expect(&once(&daemon, &GIVEN), 0, &[]);
}

#[test]
fn a_layer_that_is_no_tensor_of_its_own() {
    let daemon = daemon_with_gguf(BINARY);
    write_config(&daemon);
    let own = "model.layers.0.self_attn.own_proj";
    let weight = |module: &str, like: &GgufTestLayer| {
        let shape = [like.out_features, like.in_features];
        TensorToWrite::f32(&format!("{module}.weight"), &shape, &like.weight())
    };
    let listed = LAYERS.iter().map(|layer| weight(layer.module, layer));
    let tensors: Vec<_> = listed.chain([weight(own, &LAYERS[0])]).collect();
    let path = daemon.path().join("checkpoint/model.safetensors");
    write_safetensors(&path, &tensors, &[]);
    let include = ["--include", own, "--include", "*.q_proj"];
    let options = [&["--checkpoint", "checkpoint"], &include[..]].concat();
    let run = once(&daemon, &[&options[..], &["--format", "gguf"]].concat());
    let said = format!("'{own}' is no tensor of its own in a GGUF of the architecture 'llama'");
    expect(&run, 2, &[&said, "--exclude"]);
}

#[test]
fn servers_that_load_another_form() {
    let daemon = daemon_with_gguf(BINARY);
    let notify = ["--notify", "vllm=http://127.0.0.1:1"];
    let run = once(&daemon, &[&GIVEN[..], &notify].concat());
    expect(&run, 2, &["--notify: vLLM loads PEFT's files", "--format"]);
    let run = once(&daemon, &[&GIVEN[..], &["--format", "onnx"]].concat());
    let said = "--format: unknown form 'onnx', a list of peft, gguf, mlx";
    expect(&run, 2, &[said]);
}
