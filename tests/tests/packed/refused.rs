//! Folders that are not of this model, are not what they should be, or are packed in a way that is
//! not read.

use crate::BINARY;
use qera_tests::daemon::{EndedRun, TestDaemon, expect};
use qera_tests::gguf_model::LAYERS;
use qera_tests::packed_model::{Coding, ONCE, PLAIN, PackedModel, daemon_with_packed, weights};
use qera_tests::safetensors_file::TensorToWrite;
use serde_json::json;

fn run_with(daemon: &TestDaemon, model: &PackedModel) -> EndedRun {
    model.write(&daemon.path().join("packed"));
    daemon.run(&ONCE)
}

fn awq() -> PackedModel {
    PackedModel::awq(&weights())
}

fn gptq() -> PackedModel {
    PackedModel::gptq(&weights(), PLAIN, 1, "gptq")
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    let daemon = daemon_with_packed(BINARY, &awq());
    for (key, value, said) in [
        ("quant_method", json!("fp8"), "'fp8'"),
        ("quant_method", json!("bitsandbytes"), "'bitsandbytes'"),
        ("version", json!("gemv"), "version is \"gemv\""),
        ("bits", json!(3), "bits is 3"),
    ] {
        let mut model = awq();
        model.config[key] = value;
        expect(
            &run_with(&daemon, &model),
            1,
            &["packed/config.json", said, "read"],
        );
    }
    let mut turned = PackedModel::compressed_tensors(&weights(), PLAIN);
    turned.config["transform_config"] = json!({"config_groups": {"R1": {}}});
    expect(
        &run_with(&daemon, &turned),
        1,
        &["transform_config", "rotated"],
    );
}

#[test]
fn a_folder_that_says_nothing_is_told_what_is_read() {
    let daemon = daemon_with_packed(BINARY, &awq());
    let folder = daemon.path().join("packed");
    std::fs::write(folder.join("config.json"), "{}").unwrap();
    let run = daemon.run(&ONCE);
    expect(
        &run,
        1,
        &[
            "packed",
            "no quantization_config",
            "quantize_config.json",
            "a GGUF file",
        ],
    );
    std::fs::write(folder.join("quantize_config.json"), "{").unwrap();
    expect(&daemon.run(&ONCE), 1, &["quantize_config.json", "not JSON"]);
    std::fs::remove_file(folder.join("model.safetensors")).unwrap();
    expect(
        &daemon.run(&ONCE),
        1,
        &["packed", "holds neither model.safetensors"],
    );
    std::fs::remove_dir_all(&folder).unwrap();
    expect(&daemon.run(&ONCE), 1, &["packed", "is no file"]);
}

#[test]
fn a_packed_folder_as_the_checkpoint_is_refused() {
    let daemon = daemon_with_packed(BINARY, &awq());
    let run = daemon.run(&[&ONCE[..3], &["--checkpoint", "packed"]].concat());
    expect(&run, 1, &["quantization_config", "full-precision"]);
}

#[test]
fn tensors_that_are_not_what_they_should_be_are_named() {
    let daemon = daemon_with_packed(BINARY, &gptq());
    let ordered = Coding {
        ordered: true,
        ..PLAIN
    };
    let ordered = || PackedModel::gptq(&weights(), ordered, 1, "gptq");
    let without = |mut model: PackedModel, end: &str| {
        model.tensors.retain(|tensor| !tensor.name.ends_with(end));
        model
    };
    let changed = |mut model: PackedModel, end: &str, change: &dyn Fn(&mut TensorToWrite)| {
        change(model.tensor(end));
        model
    };
    let cut = |of: &mut TensorToWrite| {
        let row = of.bytes.len() / of.shape[0];
        of.shape[0] -= 1;
        of.bytes.truncate(row * of.shape[0]);
    };
    let bad_group = |of: &mut TensorToWrite| of.bytes[..4].copy_from_slice(&9_i32.to_le_bytes());
    let named = [
        "packed/model.safetensors",
        "down_proj.qweight'",
        "mlp.down_proj'",
    ];
    for (model, said) in [
        (without(ordered(), "down_proj.g_idx"), "'g_idx' is missing"),
        (without(gptq(), "down_proj.scales"), "'scales' is missing"),
        (without(gptq(), "down_proj.qzeros"), "'qzeros' is missing"),
        (
            changed(gptq(), "down_proj.qweight", &cut),
            "'qweight' has the shape [7, 32], [8, 32]",
        ),
        (
            changed(gptq(), "down_proj.scales", &cut),
            "'scales' has the shape [3, 32], [4, 32]",
        ),
        (
            changed(ordered(), "down_proj.g_idx", &bad_group),
            "input 0 into group 9, there are 4 groups",
        ),
    ] {
        expect(
            &run_with(&daemon, &model),
            1,
            &[&named[..], &[said]].concat(),
        );
    }
    let q = &LAYERS[0];
    let wide = awq().unpacked(0, &[q.weight(), q.weight()].concat());
    let mut wide = wide;
    wide.tensor("q_proj.weight").shape[0] *= 2;
    expect(
        &run_with(&daemon, &wide),
        1,
        &["q_proj.weight'", "[32, 32], [16, 32]", "another model"],
    );
    let mut bytes = awq().unpacked(0, &q.weight());
    let weight = bytes.tensor("q_proj.weight");
    (weight.dtype, weight.bytes) = ("F8_E4M3".into(), vec![0; 512]);
    expect(
        &run_with(&daemon, &bytes),
        1,
        &["q_proj.weight'", "F8_E4M3", "F32, F16 or BF16"],
    );
}

#[test]
fn a_file_that_is_cut_is_told() {
    let daemon = daemon_with_packed(BINARY, &awq());
    let file = daemon.path().join("packed/model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    for length in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&file, &bytes[..length]).unwrap();
        expect(&daemon.run(&ONCE), 1, &["packed/model.safetensors"]);
    }
}

#[test]
fn a_packed_weight_that_nothing_names_is_told() {
    let mut model = PackedModel::compressed_tensors(&weights(), PLAIN);
    model.config["ignore"] = json!(["re:.*k_proj$"]);
    let daemon = daemon_with_packed(BINARY, &model);
    expect(
        &daemon.run(&ONCE),
        1,
        &["k_proj.weight_packed'", "ignore does"],
    );
    model.config["ignore"] = json!(["re:.*(?=k_proj)"]);
    expect(
        &run_with(&daemon, &model),
        1,
        &["ignore", "'re:.*(?=k_proj)' is not read"],
    );
}

#[test]
fn scales_that_are_no_numbers_or_nothing_are_named() {
    let daemon = daemon_with_packed(BINARY, &awq());
    for (out, bytes, said) in [
        ("a", [0x00, 0x7e], "'scales' is NaN at output 3, group 0"),
        ("b", [0x00, 0x7c], "'scales' is inf at output 3, group 0"),
        (
            "c",
            [0x00, 0x00],
            "the scale of output 3, group 0 is 0, and the weight is not",
        ),
    ] {
        let mut model = awq();
        model.tensor("q_proj.scales").bytes[6..8].copy_from_slice(&bytes);
        let run = run_with(&daemon, &model);
        expect(&run, 1, &["q_proj.qweight'", said, "--skip-broken"]);
        let out = ["--skip-broken", "--out", out];
        let run = daemon.run(&[&ONCE[..], &out].concat());
        expect(&run, 0, &["q_proj", "left out by --skip-broken"]);
    }
    let mut floats = awq().unpacked(0, &LAYERS[0].weight());
    floats.tensor("q_proj.weight").bytes[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    expect(
        &run_with(&daemon, &floats),
        1,
        &["q_proj.weight'", "row 0", "--skip-broken"],
    );
}

/// A group of zeros is one.
#[test]
fn a_scale_of_zero_where_the_weight_is_zero_is_read() {
    let mut of = weights();
    of[0][..16].fill(0.0);
    let daemon = daemon_with_packed(BINARY, &PackedModel::awq(&of));
    let shape = |at: usize| [LAYERS[at].out_features, LAYERS[at].in_features];
    let tensors = [0, 1, 2].map(|at| {
        TensorToWrite::f32(
            &format!("{}.weight", LAYERS[at].module),
            &shape(at),
            &of[at],
        )
    });
    let file = daemon.path().join("checkpoint/model.safetensors");
    qera_tests::safetensors_file::write_safetensors(&file, &tensors, &[]);
    expect(&daemon.run(&ONCE), 0, &[]);
}

#[test]
fn another_model_of_these_widths_is_told_by_its_numbers() {
    let other = weights().map(|weight| {
        let count = weight.len();
        let other = qera_tests::three_layers::sine_values(count, 77.7);
        (0..count).map(|at| other[at * 7919 % count]).collect()
    });
    let daemon = daemon_with_packed(BINARY, &PackedModel::awq(&other));
    let run = daemon.run(&ONCE);
    expect(
        &run,
        1,
        &[
            "_proj.qweight'",
            "is not the weight of",
            "relative error 1.",
        ],
    );
    assert!(!run.log.contains("times factors"), "{}", run.log);
}

/// AWQ and SmoothQuant move factors into the layer before: W~ is near to W, and W - W~ is no error.
#[test]
fn factors_that_were_moved_are_told_and_not_undone() {
    let scaled = |by: &dyn Fn(usize, usize) -> f32| {
        let mut of = weights();
        for (at, weight) in of[2].iter_mut().enumerate() {
            *weight *= by(at / 64, at % 64);
        }
        PackedModel::awq(&of)
    };
    let daemon = daemon_with_packed(BINARY, &awq());
    let factor = |at: usize| 1.0 + 0.25 * (at as f32 * 1.7).sin();
    for (out, model, said) in [
        (
            "a",
            scaled(&|_, input| factor(input)),
            "its inputs are those of the checkpoint times factors",
        ),
        (
            "b",
            scaled(&|output, _| factor(output)),
            "its outputs are those of the checkpoint times factors",
        ),
    ] {
        let run = run_with(&daemon, &model);
        expect(
            &run,
            1,
            &["down_proj.qweight'", said, "from 0.7", "to 1.2", "AWQ"],
        );
        let out = ["--skip-broken", "--out", out];
        let run = daemon.run(&[&ONCE[..], &out].concat());
        expect(&run, 0, &["down_proj", "has other numbers for it"]);
    }
}

/// What four bits may be off is no excuse for eight.
#[test]
fn a_folder_of_another_version_of_the_model_is_told_by_its_bits() {
    let of = weights().map(|weight| {
        let other = weight.iter().enumerate();
        let other = other.map(|(at, value)| value + 0.2 * (at as f32 * at as f32 * 1.3).sin());
        other.collect()
    });
    let eight = Coding { bits: 8, ..PLAIN };
    let daemon = daemon_with_packed(BINARY, &PackedModel::gptq(&of, eight, 1, "gptq"));
    let said = [
        "3 of its 3 layers",
        "int8/16/f16/zero-points leaves",
        "another version",
    ];
    expect(&daemon.run(&ONCE), 1, &said);
}

#[test]
fn no_byte_of_a_configuration_or_header_ends_it_otherwise() {
    let daemon = daemon_with_packed(BINARY, &PackedModel::compressed_tensors(&weights(), PLAIN));
    let folder = daemon.path().join("packed");
    for name in ["config.json", "model.safetensors"] {
        let file = folder.join(name);
        let bytes = std::fs::read(&file).unwrap();
        for at in (0..bytes.len().min(900)).step_by(23) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 7);
            std::fs::write(&file, &changed).unwrap();
            let run = daemon.run(&[&["plan"], &ONCE[1..]].concat());
            assert!(
                [0, 1, 2].contains(&run.code),
                "{name} {at}: {} {}",
                run.code,
                run.log
            );
            assert!(!run.log.contains("panicked"), "{name} {at}: {}", run.log);
        }
        std::fs::write(&file, &bytes).unwrap();
    }
}
