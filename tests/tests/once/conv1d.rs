//! Conv1D weights, stored [in_features, out_features]: found wherever their family stands, and
//! corrected as the same numbers in the other order are.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::{Metadata, TensorToWrite, write_safetensors};
use qera_tests::three_layers::sine_values;

use super::BINARY;
use super::linears::{record, run};

/// Square, so that its shape says nothing of its order.
const SIDE: usize = 8;

fn weight() -> Vec<f32> {
    sine_values(SIDE * SIDE, 0.4)
}

fn transposed(values: &[f32]) -> Vec<f32> {
    let at = |i: usize| values[(i % SIDE) * SIDE + i / SIDE];
    (0..SIDE * SIDE).map(at).collect()
}

/// A model with one square weight under this name.
fn daemon(module: &str, values: &[f32], config: Option<&str>) -> TestDaemon {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let folder = daemon.path().join("checkpoint");
    fs::create_dir_all(&folder).unwrap();
    let tensor = TensorToWrite::f32(&format!("{module}.weight"), &[SIDE, SIDE], values);
    write_safetensors(&folder.join("model.safetensors"), &[tensor], &[]);
    if let Some(config) = config {
        fs::write(folder.join("config.json"), config).unwrap();
    }
    daemon
}

/// The numbers of the only weight of a base.
fn base_weight(daemon: &TestDaemon, module: &str) -> Vec<f32> {
    let bytes = fs::read(daemon.path().join("qera-out/base/model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(&format!("{module}.weight")).unwrap();
    let (data, wide) = (tensor.data(), tensor.dtype() == safetensors::Dtype::F32);
    match wide {
        true => data
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect(),
        false => qera_tests::reference::from_bf16(data),
    }
}

#[test]
fn a_conv1d_is_corrected_as_the_linear_layer_that_it_is() {
    let linear = "model.layers.0.mlp.down_proj";
    let plain = daemon(linear, &weight(), None);
    record(&plain, "a", &[(linear, SIDE)], &[]);
    expect(&run(&plain, &["--emit-base"]), 0, &["1 layers corrected"]);
    let expected = plain.adapter("qera-out").factors(linear);
    let cases = [
        (r#"{"model_type":"gpt2"}"#, "transformer.h.0.attn.c_proj"),
        (r#"{"model_type":"gpt2"}"#, "h.0.attn.c_proj"),
        (
            r#"{"model_type":"vision-encoder-decoder","decoder":{"model_type":"gpt2"}}"#,
            "decoder.transformer.h.0.attn.c_proj",
        ),
        (
            r#"{"model_type":"some-vlm","text_config":{"model_type":"gpt2"}}"#,
            "language_model.transformer.h.0.attn.c_proj",
        ),
        (
            r#"{"model_type":"decision_transformer"}"#,
            "encoder.h.0.attn.c_proj",
        ),
    ];
    for (config, module) in cases {
        let conv = daemon(module, &transposed(&weight()), Some(config));
        let listed = config.starts_with(r#"{"model_type":"gpt2""#);
        let class = [Metadata::new("qera.class", "AnyModel")];
        let said = if listed { &[][..] } else { &class };
        record(&conv, "a", &[(module, SIDE)], said);
        expect(&run(&conv, &["--emit-base"]), 0, &["1 layers corrected"]);
        let adapter = conv.adapter("qera-out");
        let layer = adapter.layer(module);
        assert_eq!(layer["transposed"], true, "{config}");
        let served = layer["served_as"].as_str().unwrap();
        assert_eq!(adapter.factors(served), expected, "{config}");
        assert_eq!(adapter.config["fan_in_fan_out"], true, "{config}");
        let base = base_weight(&conv, module);
        assert_eq!(transposed(&base), base_weight(&plain, linear), "{config}");
        assert_ne!(base, transposed(&weight()), "{config}: it is quantized");
    }
    assert_eq!(plain.adapter("qera-out").config["fan_in_fan_out"], false);
}

/// Without a config.json the tap's word tells, and without that such a name is asked about.
#[test]
fn the_taps_word_is_enough_and_without_any_it_is_asked_for() {
    let module = "h.0.attn.c_proj";
    let conv = daemon(module, &transposed(&weight()), None);
    record(&conv, "a", &[(module, SIDE)], &[]);
    let asked = [
        "tensor 'h.0.attn.c_proj' may be stored",
        "qera.linears must say so",
    ];
    expect(&run(&conv, &[]), 1, &asked);
    let named = run(&conv, &["--include", module]);
    expect(
        &named,
        2,
        &["--include 'h.0.attn.c_proj'", "qera.linears must say so"],
    );
    let linears = format!(r#"[{{"name":"{module}","in":8,"out":8,"transposed":true}}]"#);
    record(
        &conv,
        "a",
        &[(module, SIDE)],
        &[Metadata::new("qera.linears", &linears)],
    );
    expect(&run(&conv, &[]), 0, &["1 layers corrected"]);
    assert_eq!(conv.adapter("qera-out").layer(module)["transposed"], true);
}
