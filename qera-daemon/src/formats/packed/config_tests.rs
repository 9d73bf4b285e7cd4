//! Configurations that are read and those that are not, from those of the vectors.

use safetensors::Dtype;
use serde_json::{Value, json};

use crate::formats::packed::config::PackingConfig;
use crate::formats::packed::scheme::{Bits, InputGroups};
use crate::formats::packed::weight_tests::quantization;

fn refused(config: &Value) -> String {
    let error = PackingConfig::parse(config, None).err();
    error.map_or_else(String::new, |error| error.to_string())
}

/// A configuration with one value changed.
fn with(name: &str, path: &str, value: Value) -> Value {
    let mut config = quantization(name);
    *config.pointer_mut(path).unwrap() = value;
    config
}

/// A configuration with one field changed or added.
fn field(name: &str, key: &str, value: Value) -> Value {
    let mut config = quantization(name);
    config[key] = value;
    config
}

#[test]
fn other_methods_are_refused_by_name() {
    for method in [
        "fp8",
        "bitsandbytes",
        "hqq",
        "exl2",
        "exl3",
        "mxfp4",
        "modelopt",
        "auto-round",
        "quark",
    ] {
        let said = refused(&json!({"quant_method": method, "bits": 4}));
        assert!(said.contains(&format!("'{method}'")), "{said}");
        assert!(
            said.contains("compressed-tensors") && said.contains("awq"),
            "{said}"
        );
    }
}

#[test]
fn what_is_not_read_of_compressed_tensors_is_refused_by_name() {
    let weights = |key: &str, value| {
        let path = format!("/config_groups/group_0/weights/{key}");
        with("ct-4-32", &path, value)
    };
    for (config, words) in [
        (json!([]), "is no object"),
        (json!({"bits": 4, "group_size": 64}), "no quant_method"),
        (json!({"quant_method": 4}), "quant_method is 4, a text"),
        (
            field("ct-4-32", "format", json!("float-quantized")),
            "format is \"float-quantized\"",
        ),
        (
            field("ct-4-32", "format", json!("nvfp4-pack-quantized")),
            "pack-quantized is read",
        ),
        (
            field("ct-4-32", "quantization_status", json!("frozen")),
            "quantization_status is \"frozen\"",
        ),
        (
            field(
                "ct-4-32",
                "transform_config",
                json!({"config_groups": {"u": {}}}),
            ),
            "transform_config is not empty",
        ),
        (
            field(
                "ct-4-32",
                "sparsity_config",
                json!({"format": "sparse-24-bitmask"}),
            ),
            "sparsity_config.format is \"sparse-24-bitmask\"",
        ),
        (
            field("ct-4-32", "config_groups", json!(7)),
            "config_groups is 7",
        ),
        (
            field("ct-4-32", "ignore", json!(["re:a(?!b)"])),
            "ignore: 're:a(?!b)' is not read",
        ),
        (
            with(
                "ct-4-32",
                "/config_groups/group_0/input_activations",
                json!({"num_bits": 8}),
            ),
            "config_groups.group_0.input_activations is quantized",
        ),
        (
            weights("num_bits", json!(3)),
            "config_groups.group_0.weights.num_bits is 3, 4 or 8",
        ),
        (weights("num_bits", json!(4.5)), "num_bits is 4.5"),
        (weights("type", json!("float")), "type is \"float\", int"),
        (
            weights("strategy", json!("tensor")),
            "strategy is \"tensor\", group or channel",
        ),
        (weights("group_size", json!(0)), "group_size is 0"),
        (weights("actorder", json!("other")), "actorder is \"other\""),
    ] {
        let said = refused(&config);
        assert!(said.contains(words), "'{words}' is not in '{said}'");
    }
}

#[test]
fn what_is_not_read_of_gptq_and_awq_is_refused_by_name() {
    for (config, words) in [
        (field("gptq-4", "bits", json!(3)), "bits is 3"),
        (field("gptq-4", "group_size", json!(-2)), "group_size is -2"),
        (
            field("gptq-4", "group_size", json!(null)),
            "group_size is missing",
        ),
        (
            field("gptq-4", "checkpoint_format", json!("marlin")),
            "checkpoint_format is \"marlin\"",
        ),
        (
            field("gptq-4", "desc_act", json!("yes")),
            "desc_act is \"yes\"",
        ),
        (
            field("awq", "version", json!("gemv")),
            "version is \"gemv\", gemm",
        ),
        (field("awq", "bits", json!(8)), "bits is 8, 4 is read"),
    ] {
        let said = refused(&config);
        assert!(said.contains(words), "'{words}' is not in '{said}'");
    }
}

#[test]
fn targets_are_met_by_name_expression_and_class_in_this_order() {
    let group = |targets: Value, bits: u64| json!({"targets": targets, "weights": {"num_bits": bits, "strategy": "channel"}});
    let config = json!({
        "quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {
            "a": group(json!(["Linear"]), 8),
            "b": group(json!([r"re:.*\.mlp\..*"]), 4),
            "c": group(json!(["m.0.mlp.up"]), 8),
        },
        "ignore": ["lm_head", r"re:.*\.[3-5]\..*"],
    });
    let PackingConfig::CompressedTensors(targets) = PackingConfig::parse(&config, None).unwrap()
    else {
        unreachable!("it says so");
    };
    let bits = |module: &str| targets.scheme_of(module).map(|of| of.bits.count());
    for (module, expected) in [
        ("m.0.attn.q", Some(8)),
        ("m.0.mlp.down", Some(4)),
        ("m.0.mlp.up", Some(8)),
        ("m.4.mlp.up", None),
        ("lm_head", None),
    ] {
        assert_eq!(bits(module), expected, "{module}");
    }
    let scheme = targets.scheme_of("m.0.attn.q").unwrap();
    assert_eq!(
        (scheme.bits, scheme.grouping),
        (Bits::Eight, InputGroups::Channel)
    );
    assert_eq!(scheme.described(Dtype::BF16), "int8/channel/bf16");
    let PackingConfig::Awq(awq) = PackingConfig::parse(&quantization("awq"), None).unwrap() else {
        unreachable!("it says so");
    };
    assert_eq!(awq.described(Dtype::F16), "int4/32/f16/zero-points");
}
