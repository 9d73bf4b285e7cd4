//! `verify` on a packed base: names, shapes, W~, every byte of it.

use std::fs;
use std::path::PathBuf;

use qera_tests::daemon::{TestDaemon, expect, expect_verdict};
use qera_tests::output_folder::unseal;
use serde_json::{Value, json};

use crate::folder::BaseFolder;
use crate::model::{BLOCK, daemon_with_block, run_both, run_once};

fn packed_folder(daemon: &TestDaemon) -> PathBuf {
    daemon.path().join("qera-out/base-compressed-tensors")
}

#[test]
fn either_base_holds_and_so_does_each_grid() {
    for options in [
        &[][..],
        &["--quantizer", "mxint8"],
        &["--quantizer", "int4"],
        &["--quantizer", "int4", "--zero-points"],
    ] {
        let daemon = daemon_with_block();
        expect(&run_both(&daemon, options), 0, &[]);
        let holds = [
            "holds: ",
            "7 layers of rank 2, on ",
            "base-compressed-tensors",
        ];
        let run = daemon.verify(&[]);
        expect_verdict(&run, 0, &holds);
        assert!(!run.output.contains("not checked"), "{}", run.output);
        expect_verdict(
            &daemon.verify(&["--base", "qera-out/base"]),
            0,
            &["holds: "],
        );
        // Found beside the generation, the packed one first.
        let (from, to) = (daemon.path().join("qera-out"), daemon.path().join("moved"));
        fs::rename(&from, &to).unwrap();
        let moved = daemon.run(&["verify", "--adapter", "moved/current"]);
        expect_verdict(&moved, 0, &["on ", "moved/base-compressed-tensors"]);
    }
}

/// The last code of a layer is in no sample of a few rows, and any other one is a level as well.
#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let daemon = daemon_with_block();
    let emits = "--emit-base=compressed-tensors";
    expect(&run_once(&daemon, &[emits]), 0, &[]);
    let model = packed_folder(&daemon).join("model.safetensors");
    let bytes = fs::read(&model).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let codes = file.tensor(&format!("{BLOCK}.mlp.down_proj.weight_packed"));
    let codes = codes.unwrap().data();
    let begin = codes.as_ptr() as usize - bytes.as_ptr() as usize;
    for (place, of_sample) in [(begin, true), (begin + codes.len() - 1, false)] {
        let mut flipped = bytes.clone();
        flipped[place] ^= 1;
        fs::write(&model, &flipped).unwrap();
        let run = daemon.verify(&[]);
        expect_verdict(
            &run,
            1,
            &["model.safetensors is not the file that qera_base.json was written for"],
        );
        let said = "down_proj.weight' is not the W~ that qera_base.json was written for";
        assert_eq!(run.output.contains(said), of_sample, "{}", run.output);
    }
    fs::write(&model, &bytes).unwrap();
    expect_verdict(&daemon.verify(&[]), 0, &["holds: "]);
    let config = packed_folder(&daemon).join("config.json");
    let mut changed: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    changed
        .as_object_mut()
        .unwrap()
        .remove("quantization_config");
    fs::write(&config, changed.to_string()).unwrap();
    expect_verdict(&daemon.verify(&[]), 1, &["has no quantization_config"]);
}

#[test]
fn another_shape_and_another_model_are_named() {
    let daemon = daemon_with_block();
    expect(&run_both(&daemon, &[]), 0, &[]);
    let packed = BaseFolder::open(&packed_folder(&daemon));
    let mut record = packed.record;
    // The record with 8 bits a code, which would be half as many inputs.
    record["packed"]["bits"] = 8.into();
    let path = packed_folder(&daemon).join("qera_base.json");
    fs::write(path, record.to_string()).unwrap();
    let run = daemon.verify(&[]);
    let said = "down_proj' is not packed as qera_base.json says";
    expect_verdict(&run, 1, &[said]);
    let full = daemon.verify(&["--base", "checkpoint"]);
    expect_verdict(&full, 1, &["is not quantized by mxint4/32"]);
}

/// An engine reads the codes as config.json says, whatever the record knows.
#[test]
fn a_configuration_that_says_otherwise_is_found() {
    let daemon = daemon_with_block();
    let options = ["--emit-base=compressed-tensors", "--exclude", "*.o_proj"];
    expect(&run_once(&daemon, &options), 0, &[]);
    // What is asked is what it says, not whether it is what was written.
    unseal(&daemon.path().join("qera-out/current"));
    let path = packed_folder(&daemon).join("config.json");
    let own: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let down = format!("{BLOCK}.mlp.down_proj");
    let weights = "/config_groups/group_0/weights";
    let long = "x".repeat(400_000);
    for (field, value, said) in [
        ("/num_bits", json!(8), "num_bits is 8, 4 is expected"),
        ("/group_size", json!(64), "group_size is 64, 32 is expected"),
        (
            "/symmetric",
            json!(false),
            "symmetric is false, true is expected",
        ),
        ("/strategy", json!(long), "strategy is \"xxx"),
        (
            "ignore",
            json!([down, "lm_head", format!("{BLOCK}.self_attn.o_proj")]),
            &format!("quantization_config.ignore has \"{down}\", which is packed"),
        ),
        (
            "ignore",
            json!(["lm_head"]),
            &format!("ignore lacks \"{BLOCK}.self_attn.o_proj\", which stands there as numbers"),
        ),
    ] {
        let mut changed = own.clone();
        let field = match field.strip_prefix('/') {
            Some(name) => format!("/quantization_config{weights}/{name}"),
            None => format!("/quantization_config/{field}"),
        };
        *changed.pointer_mut(&field).unwrap() = value;
        fs::write(&path, changed.to_string()).unwrap();
        let run = daemon.verify(&[]);
        expect_verdict(
            &run,
            1,
            &[
                "base-compressed-tensors: config.json: quantization_config.",
                said,
                "fails: 1 problems",
            ],
        );
        assert!(run.output.len() < 2000, "{}", run.output.len());
    }
    // In another order the record says the same.
    let mut turned = own;
    let ignore = turned.pointer_mut("/quantization_config/ignore").unwrap();
    ignore.as_array_mut().unwrap().reverse();
    fs::write(&path, turned.to_string()).unwrap();
    expect_verdict(&daemon.verify(&[]), 0, &["holds: "]);
}
