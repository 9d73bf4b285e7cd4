//! What people write: configurations beside weights, lists of a checkpoint's files, settings.

use serde_json::{Value, json};

use super::{dressed, plain};
use crate::formats::checkpoint_index::CheckpointIndex;
use crate::formats::model_config::{ModelConfig, is_identifier};
use crate::formats::packed::config::PackingConfig;
use crate::settings::Settings;
use crate::settings::layered::Layered;
use crate::trials::draw::Draw;
use crate::trials::fuzz::Target;
use crate::trials::fuzz::mutation::{mutate_bytes, times};
use crate::trials::fuzz::seeds::SEEDS;
use crate::trials::small_run::LAYERS;

pub(super) const CONFIG: Target = Target {
    name: "config",
    make: make_config,
    read: read_config,
};
pub(super) const CHECKPOINT_INDEX: Target = Target {
    name: "checkpoint-index",
    make: |draw| dressed(&index(), draw, plain),
    read: read_index,
};
pub(super) const SETTINGS: Target = Target {
    name: "settings",
    make: make_settings,
    read: read_settings,
};

/// What each of the methods that are read says of itself.
fn quantizations() -> [Value; 3] {
    let weights = json!({"num_bits": 4, "type": "int", "symmetric": true, "strategy": "group",
        "group_size": 32, "actorder": null, "dynamic": false, "observer": "minmax"});
    let group = json!({"targets": ["Linear", "re:.*q_proj$"], "weights": weights,
        "input_activations": null, "output_activations": null});
    [
        json!({"quant_method": "compressed-tensors", "format": "pack-quantized",
            "config_groups": {"group_0": group}, "ignore": ["lm_head", "re:.*down.*"],
            "quantization_status": "compressed", "kv_cache_scheme": null}),
        json!({"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": false,
            "sym": true, "checkpoint_format": "gptq", "dynamic": {"-:.*gate.*": {}}}),
        json!({"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": true,
            "version": "gemm", "modules_to_not_convert": ["lm_head"]}),
    ]
}

fn make_config(draw: &mut Draw) -> Vec<u8> {
    let mut seed = SEEDS.config.clone();
    match draw.below(4) {
        3 => seed["text_config"] = SEEDS.config.clone(),
        method => seed["quantization_config"] = quantizations()[method].clone(),
    }
    dressed(&seed, draw, plain)
}

fn read_config(bytes: &[u8]) -> bool {
    let Ok(config) = ModelConfig::parse(bytes) else {
        return false;
    };
    let class = config.class().unwrap_or_default();
    assert!(class.is_empty() || is_identifier(class));
    let _ = (
        config.name(),
        config.remote_loader(class),
        config.quantized_by(),
    );
    for kind in config.kinds() {
        let _ = config.number(kind, &["num_attention_heads"]);
        let _ = config.flag(kind, "tie_word_embeddings");
    }
    let _ = config.ties_embeddings();
    let packing = config
        .quantization()
        .map(|of| PackingConfig::parse(of, None));
    if let Some(Ok(PackingConfig::CompressedTensors(packing))) = &packing {
        for (name, _) in LAYERS {
            let _ = packing.scheme_of(name);
        }
    }
    config.names_a_model() && packing.is_none_or(|read| read.is_ok())
}

fn index() -> Value {
    json!({"metadata": {"total_size": 5}, "weight_map": {
        "model.layers.0.q.weight": "model-00001-of-00002.safetensors",
        "model.layers.1.q.weight": "model-00002-of-00002.safetensors",
        "model.norm.weight": "model-00002-of-00002.safetensors"}})
}

fn read_index(bytes: &[u8]) -> bool {
    let Ok(index) = CheckpointIndex::parse(bytes) else {
        return false;
    };
    let value: Value = serde_json::from_slice(bytes).unwrap();
    let map = value["weight_map"].as_object().unwrap();
    assert_eq!(index.files.values().map(Vec::len).sum::<usize>(), map.len());
    for (file, tensors) in &index.files {
        assert!(!file.contains('/') && file != ".." && file != "." && !file.is_empty());
        assert!(tensors.iter().all(|tensor| map[tensor] == file.as_str()));
    }
    true
}

/// Lines of a settings file; most are sound.
const LINES: [&str; 40] = [
    "rank = 8",
    "rank = 0",
    "rank = -1",
    "rank = 18446744073709551616",
    "rank-for = [\"*.q_proj=4\"]",
    "rank-for = [\"*\"]",
    "checkpoint = \"model\"",
    "watch = \"activations\"",
    "out = \"qera-out\"",
    "state = \"qera-out\"",
    "state = \"elsewhere\"",
    "method = \"approx\"",
    "method = \"lqer\"",
    "quantizer = \"mxint4\"",
    "quantizer = \"int3\"",
    "quantizer = \"mxint\"",
    "block-size = 64",
    "block-size = 3",
    "shrinkage = \"auto\"",
    "shrinkage = 0.5",
    "shrinkage = 1e999",
    "once = true",
    "until-converged = true",
    "tolerance = 0.01",
    "tolerance = nan",
    "idle-publish = 3",
    "keep-generations = 4",
    "include = [\"re:(a+)+$\", \"*.mlp.*\"]",
    "exclude = [\"[\"]",
    "map = [\"^a\\\\.(.*)$=b.$1\"]",
    "dtype = \"f16\"",
    "formats = [\"peft\", \"gguf\"]",
    "notify = [\"vllm=http://127.0.0.1:8000\"]",
    "memory-budget = \"2GiB\"",
    "memory-budget = \"99999999999999999999TiB\"",
    "rounding = \"projected\"",
    "rounding = \"feedback\"",
    "consume = \"move\"",
    "threads = 2",
    "\"rank\" = { a = [1, 1979-05-27T07:32:00Z, 0x_f] }",
];

fn make_settings(draw: &mut Draw) -> Vec<u8> {
    let lines: Vec<_> = (0..draw.below(5)).map(|_| *draw.of(&LINES)).collect();
    let mut bytes = lines.join("\n").into_bytes();
    if draw.once_in(2) {
        let other = draw.of(&LINES).as_bytes();
        for _ in 0..times(draw) {
            mutate_bytes(&mut bytes, other, draw);
        }
    }
    bytes
}

fn read_settings(bytes: &[u8]) -> bool {
    let Ok(text) = core::str::from_utf8(bytes) else {
        return false;
    };
    let layered = match Layered::of_text(text) {
        Ok(layered) => layered,
        Err(refused) => {
            assert!(!refused.to_string().contains('\n'), "{refused}");
            return false;
        }
    };
    // What is shown is settings again, and shows the same.
    let shown = layered.show();
    let values = |shown: &str| -> Vec<String> {
        let lines = shown.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.rsplit_once(" # ").unwrap().0.trim_end().to_owned())
            .collect()
    };
    let again = Layered::of_text(&shown).unwrap().show();
    assert_eq!(values(&again), values(&shown));
    // To ask the machine what it is, and what it has free, would take half of the time.
    let mut options = layered.options;
    options.threads = options.threads.or(Some(1));
    let ask = [
        (&mut options.memory_budget, "80%", "1GiB"),
        (&mut options.kernel, "auto", "portable"),
    ];
    for (option, default, plain) in ask {
        if option.as_deref() == Some(default) {
            *option = Some(plain.into());
        }
    }
    Settings::resolve(&options).is_ok()
}
