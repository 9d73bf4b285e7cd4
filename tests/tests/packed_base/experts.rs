//! A block with experts: what chooses them stays whole, and they are packed together or not at all.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::{Metadata, TensorToWrite, write_safetensors};
use qera_tests::three_layers::sine_values;
use serde_json::{Value, json};

use crate::BINARY;
use crate::folder::BaseFolder;
use crate::model::{BLOCK, run_both};

const OUTPUT: &str = "self_attn.o_proj";
const ROUTER: &str = "block_sparse_moe.gate";
/// Path in the block, and shape.
const LAYERS: [(&str, [usize; 2]); 8] = [
    (OUTPUT, [64, 64]),
    (ROUTER, [32, 64]),
    ("block_sparse_moe.experts.0.w1", [32, 64]),
    ("block_sparse_moe.experts.0.w2", [64, 32]),
    ("block_sparse_moe.experts.0.w3", [32, 64]),
    ("block_sparse_moe.experts.1.w1", [32, 64]),
    ("block_sparse_moe.experts.1.w2", [64, 32]),
    ("block_sparse_moe.experts.1.w3", [32, 64]),
];

fn daemon_with_experts() -> TestDaemon {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let checkpoint = daemon.path().join("checkpoint");
    fs::create_dir(&checkpoint).unwrap();
    let layers = LAYERS.iter().zip(0_u8..);
    let tensors = layers.map(|((name, shape), phase)| {
        let values = sine_values(shape[0] * shape[1], f32::from(phase));
        TensorToWrite::bf16(&format!("{BLOCK}.{name}.weight"), shape, &values)
    });
    let tensors: Vec<TensorToWrite> = tensors.collect();
    write_safetensors(&checkpoint.join("model.safetensors"), &tensors, &[]);
    let config = r#"{"model_type": "mixtral"}"#;
    fs::write(checkpoint.join("config.json"), config).unwrap();
    let linears = LAYERS.iter().map(
        |(name, [out, width])| json!({"name": format!("{BLOCK}.{name}"), "in": width, "out": out}),
    );
    let linears = Value::Array(linears.collect()).to_string();
    let rows = sine_values(200 * 64, 0.5);
    let rows = TensorToWrite::f32(&format!("{BLOCK}.{OUTPUT}"), &[200, 64], &rows);
    let path = daemon.watched().join("a.safetensors");
    let said = [Metadata::new("qera.linears", &linears)];
    write_safetensors(&path, &[rows], &said);
    daemon
}

#[test]
fn experts_are_packed_together_or_not_at_all() {
    for (options, are_packed) in [(&[][..], true), (&["--exclude", "*.experts.1.w2"], false)] {
        let daemon = daemon_with_experts();
        expect(&run_both(&daemon, options), 0, &["published generation 1"]);
        let packed = daemon.path().join("qera-out/base-compressed-tensors");
        let packed = BaseFolder::open(&packed);
        for (name, _) in &LAYERS {
            let expected = *name == OUTPUT || are_packed && *name != ROUTER;
            assert_eq!(packed.packs(&format!("{BLOCK}.{name}")), expected, "{name}");
        }
        let whole = packed.record["packed"]["whole"].as_array().unwrap();
        let router = whole
            .iter()
            .find(|of| of["layer"] == format!("{BLOCK}.{ROUTER}"));
        let said = "engines do not quantize routers of experts";
        assert_eq!(router.unwrap()["reason"], said);
        let others = LAYERS.len() - 3;
        assert_eq!(whole.len(), 1 + if are_packed { 0 } else { others });
    }
}
