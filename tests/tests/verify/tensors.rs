//! Damaged tensors.

use std::fs;

use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{DOWN, K, Q};

use super::copied_adapter::{
    change_json, change_tensors, copy_adapter, expect_holds, expect_problems, factor, published,
    tensor, tensors_path, verify,
};

type Damage = fn(&mut Vec<TensorToWrite>);

fn fill(tensors: &mut [TensorToWrite], name: &str, value: f32) {
    let tensor = tensor(tensors, name);
    let count = tensor.shape.iter().product();
    *tensor = TensorToWrite::f32(name, &tensor.shape.clone(), &vec![value; count]);
}

/// What is done to the tensors, and the problems that are named.
const DAMAGES: [(Damage, &[&str]); 13] = [
    (
        |tensors| tensors.retain(|t| t.name != factor(Q, 'B')),
        &["q_proj.lora_B.weight' is missing, its other half is there"],
    ),
    (
        |tensors| tensors.retain(|t| !t.name.contains("q_proj")),
        &[
            "q_proj has no tensors, qera_manifest.json calls it solved",
            "'q_proj' of target_modules also means model.layers.0.self_attn.q_proj,",
        ],
    ),
    (
        |tensors| tensors.push(TensorToWrite::f32("extra", &[1], &[1.0])),
        &["tensor 'extra' is neither"],
    ),
    (
        |tensors| {
            for (of, shape) in [('A', [2, 8]), ('B', [8, 2])] {
                let name = factor("model.norm", of);
                tensors.push(TensorToWrite::f32(&name, &shape, &[1.0; 16]));
            }
        },
        &[
            "model.norm has tensors, qera_manifest.json does not know it",
            "no entry of target_modules means model.norm,",
            "'model.norm.weight' [8]",
        ],
    ),
    (
        |tensors| tensor(tensors, &factor(Q, 'B')).shape = vec![3, 4],
        &["q_proj: A is [2, 8] and B is [3, 4]: their ranks differ"],
    ),
    (
        |tensors| {
            let b = tensor(tensors, &factor(Q, 'B'));
            b.shape = vec![4, 2];
            b.bytes.truncate(4 * 2 * 4);
        },
        &[
            "q_proj: A and B make [4, 8], qera_manifest.json says [6, 8]",
            "q_proj: A and B fit [4, 8] (fan_in_fan_out is not set)",
        ],
    ),
    (
        |tensors| {
            tensor(tensors, &factor(Q, 'A')).shape = vec![4, 8];
            tensor(tensors, &factor(Q, 'B')).shape = vec![6, 4];
            for of in ['A', 'B'] {
                let bytes = &mut tensor(tensors, &factor(Q, of)).bytes;
                bytes.extend(bytes.clone());
            }
        },
        &["q_proj: its pair has rank 4, adapter_config.json says 2"],
    ),
    (
        |tensors| fill(tensors, &factor(Q, 'B'), 0.0),
        &["q_proj: B is all zero, qera_manifest.json says that its correction takes"],
    ),
    (
        |tensors| {
            for module in [Q, K, DOWN] {
                fill(tensors, &factor(module, 'A'), -0.0);
            }
        },
        &[
            "q_proj: A is all zero",
            "k_proj: A is all zero",
            "down_proj: A is all zero",
            "every pair is zero: the adapter changes nothing",
        ],
    ),
    (
        |tensors| {
            let a = tensor(tensors, &factor(Q, 'A'));
            a.bytes[4 * 11..4 * 12].copy_from_slice(&f32::NAN.to_le_bytes());
        },
        &["q_proj.lora_A.weight' is NaN or infinite at [1, 3]"],
    ),
    (
        |tensors| {
            let a = tensor(tensors, &factor(Q, 'A'));
            *a = TensorToWrite::new(&a.name, "F64", &[2, 4], a.bytes.clone());
        },
        &["q_proj.lora_A.weight' is F64; F32, F16 and BF16 are read"],
    ),
    (
        |tensors| tensor(tensors, &factor(Q, 'A')).shape = vec![16],
        &["q_proj.lora_A.weight' is [16], no matrix"],
    ),
    (
        Vec::clear,
        &[
            "has no tensor base_model.model.NAME.lora_A.weight",
            "q_proj has no tensors",
            "k_proj has no tensors",
            "down_proj has no tensors",
            "'q_proj' of target_modules also means",
            "'k_proj' of target_modules also means",
            "'down_proj' of target_modules also means",
        ],
    ),
];

#[test]
fn every_damage_of_the_tensors_is_named() {
    let daemon = published(&["--dtype", "f32"]);
    expect_holds(
        &verify(&daemon, &[]),
        &["3 layers of rank 2", "qera-out/base"],
    );
    for (damage, said) in DAMAGES {
        copy_adapter(&daemon);
        change_tensors(&tensors_path(&daemon), damage);
        expect_problems(&verify(&daemon, &[]), said);
    }
}

#[test]
fn a_file_that_is_missing_or_cut_is_named() {
    let daemon = published(&[]);
    let bytes = fs::read(tensors_path(&daemon)).unwrap();
    fs::write(tensors_path(&daemon), &bytes[..bytes.len() - 3]).unwrap();
    expect_problems(
        &verify(&daemon, &[]),
        &["adapter_model.safetensors: truncated"],
    );
    fs::remove_file(tensors_path(&daemon)).unwrap();
    expect_problems(
        &verify(&daemon, &[]),
        &["adapter_model.safetensors: No such file"],
    );
    fs::write(daemon.path().join("adapter/adapter_model.bin"), "x").unwrap();
    expect_problems(&verify(&daemon, &[]), &["pickled tensors are not read"]);
    for file in ["adapter_config.json", "qera_manifest.json"] {
        copy_adapter(&daemon);
        fs::write(daemon.path().join("adapter").join(file), "{").unwrap();
        expect_problems(&verify(&daemon, &["--base", "qera-out/base"]), &[file]);
    }
    fs::remove_dir_all(daemon.path().join("adapter")).unwrap();
    expect_problems(&verify(&daemon, &[]), &["adapter: is no folder"]);
}

/// A layer that no row fed is in neither file; zeros have their reason where nothing is corrected.
#[test]
fn the_manifest_gives_zeros_their_reason() {
    let daemon = published(&["--method", "w-only"]);
    expect_holds(&verify(&daemon, &[]), &[]);
    let daemon = published(&["--dtype", "f32"]);
    change_tensors(&tensors_path(&daemon), |tensors| {
        fill(tensors, &factor(Q, 'B'), 0.0);
    });
    change_json(&daemon, "adapter/qera_manifest.json", |manifest| {
        let layers = manifest["layers"].as_array_mut().unwrap();
        let q = layers.iter_mut().find(|l| l["name"] == Q).unwrap();
        q["status"] = "nothing-to-correct".into();
    });
    expect_holds(&verify(&daemon, &[]), &[]);
    change_json(&daemon, "adapter/qera_manifest.json", |manifest| {
        let layers = manifest["layers"].as_array_mut().unwrap();
        let q = layers.iter_mut().find(|l| l["name"] == Q).unwrap();
        q["status"] = "starved".into();
    });
    let said = "q_proj has tensors, qera_manifest.json calls it starved";
    expect_problems(&verify(&daemon, &[]), &[said]);
}

#[test]
fn a_hundred_problems_are_printed_and_the_rest_is_counted() {
    let daemon = published(&[]);
    change_tensors(&tensors_path(&daemon), |tensors| {
        let extra = (0..130).map(|i| TensorToWrite::f32(&format!("extra-{i}"), &[1], &[1.0]));
        tensors.extend(extra);
    });
    let run = verify(&daemon, &[]);
    let problems = run.output.lines().filter(|l| l.starts_with("problem: "));
    assert_eq!((run.code, problems.count()), (1, 101), "{}", run.output);
    for said in ["problem: and 30 more\n", "fails: 130 problems"] {
        assert!(run.output.contains(said), "{}", run.output);
    }
}
