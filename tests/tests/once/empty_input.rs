//! What no input, or next to none, gets: nothing published, or finite results and a warning.

use std::fs;
use std::path::Path;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::{Metadata, TensorToWrite, write_safetensors};
use qera_tests::three_layers::{
    DOWN, K, Q, daemon_with_shards, once_with, remove_shards, shard_path, sine_values,
    write_checkpoint,
};

use safetensors::SafeTensors;

use super::BINARY;

#[test]
fn nothing_usable_publishes_nothing() {
    let daemon = daemon_with_shards(BINARY);
    for shard in 0..4 {
        fs::write(
            shard_path(&daemon, &format!("shard-{shard}")),
            "garbage that is longer than a header",
        )
        .unwrap();
    }
    expect(
        &daemon.run(&once_with(&[])),
        1,
        &["none of its shards gave a row (4 refused)"],
    );
    assert!(!daemon.path().join("qera-out/current").exists());
}

#[test]
fn starved_layers_are_listed_and_are_not_in_the_adapter() {
    let daemon = daemon_with_shards(BINARY);
    let listed = format!(r#"[{{"name":"{DOWN}","in":12,"out":8}}]"#);
    for shard in 0..4 {
        let rows = sine_values(300 * 8, shard as f32);
        write_safetensors(
            &shard_path(&daemon, &format!("shard-{shard}")),
            &[TensorToWrite::f32(Q, &[300, 8], &rows)],
            &[Metadata::new("qera.linears", &listed)],
        );
    }
    expect(
        &daemon.run(&once_with(&["--emit-base"])),
        0,
        &["1 starved", "no row seen"],
    );
    // Quantized without a correction.
    let weight = |folder: &str| {
        let bytes = fs::read(daemon.path().join(folder).join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = file.tensor(&format!("{DOWN}.weight")).unwrap();
        tensor.data().to_vec()
    };
    assert_ne!(weight("checkpoint"), weight("qera-out/base"));
    let adapter = daemon.adapter("qera-out");
    assert_eq!(adapter.layer(DOWN)["status"], "starved");
    assert_eq!(adapter.layer(K)["status"], "solved", "k shares q's input");
    assert!(!adapter.has(DOWN) && adapter.has(K));
    let targets = ["k_proj", "q_proj"];
    assert_eq!(adapter.config["target_modules"], serde_json::json!(targets));
}

/// A generation of zeros must not take the place of a good one.
#[test]
fn an_empty_folder_publishes_nothing() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &["published generation 1"]);
    remove_shards(&daemon);
    expect(&daemon.run(&once_with(&[])), 0, &["nothing new"]);
    expect(
        &daemon.run(&once_with(&["--out", "fresh"])),
        1,
        &[
            "activations: holds no shard (*.safetensors) with a row",
            "nothing was published",
        ],
    );
    assert!(!daemon.path().join("fresh/current").exists());
    assert_eq!(
        fs::read_link(daemon.path().join("qera-out/current")).unwrap(),
        Path::new("generations/000001")
    );
}

#[test]
fn degenerate_inputs_stay_finite() {
    let daemon = daemon_with_shards(BINARY);
    for shard in 0..4 {
        // Two rows for eight channels, half of them dead; the other site is all zero.
        let mut rows = sine_values(16, shard as f32);
        rows.iter_mut()
            .enumerate()
            .filter(|(i, _)| i % 2 == 0)
            .for_each(|(_, x)| *x = 0.0);
        let tensors = [
            TensorToWrite::f32(Q, &[2, 8], &rows),
            TensorToWrite::f32(DOWN, &[2, 12], &[0.0; 24]),
        ];
        write_safetensors(
            &shard_path(&daemon, &format!("shard-{shard}")),
            &tensors,
            &[],
        );
    }
    let methods = "exact approx lqer lqer-mean zeroquant-v2 w-only";
    for method in methods.split(' ') {
        for shrinkage in ["auto", "0"] {
            let options = ["--shrinkage", shrinkage, "--rank-for", "*q_proj=50"];
            let once = once_with(&["--method", method]);
            check_degenerate(&daemon, method, &[&once[..], &options].concat());
        }
    }
}

fn check_degenerate(daemon: &TestDaemon, method: &str, options: &[&str]) {
    let warnings = [
        "4 channels of 8 never differ from zero",
        "all 12 channels are zero",
    ];
    let said = if method == "exact" {
        &warnings[..]
    } else {
        &[]
    };
    expect(&daemon.run(options), 0, said);
    let adapter = daemon.adapter("qera-out");
    for module in [Q, K, DOWN] {
        let is_finite = adapter.factors(module).values().all(f32::is_finite);
        assert!(is_finite, "{method} {module}");
    }
    assert_eq!(adapter.layer(DOWN)["status"], "nothing-to-correct");
    let error = |key: &str| adapter.layer(Q)["error"][key].as_f64().unwrap();
    assert!(error("with") <= error("without") * (1.0 + 1e-9), "{method}");
}

/// Shards without a row for a selected layer, over a good generation: none of them may replace it.
#[test]
fn shards_without_rows_publish_nothing() {
    let masked = [
        TensorToWrite::f32(Q, &[2, 8], &sine_values(16, 0.0)),
        TensorToWrite::u8(&format!("{Q}::mask"), &[2], &[0, 0]),
    ];
    let cases: [(&str, Vec<TensorToWrite>); 4] = [
        (
            "excluded keys",
            vec![TensorToWrite::f32(
                "model.embed_tokens",
                &[1, 8],
                &sine_values(8, 0.0),
            )],
        ),
        ("no tensor", vec![]),
        ("no row", vec![TensorToWrite::f32(Q, &[0, 8], &[])]),
        ("masked rows", masked.to_vec()),
    ];
    for (name, tensors) in cases {
        let daemon = daemon_with_shards(BINARY);
        expect(&daemon.run(&once_with(&[])), 0, &["published generation 1"]);
        remove_shards(&daemon);
        write_safetensors(&shard_path(&daemon, "only"), &tensors, &[]);
        expect(&daemon.run(&once_with(&[])), 0, &["nothing new"]);
        let fresh = daemon.run(&once_with(&["--out", "fresh"]));
        expect(&fresh, 1, &["nothing was published"]);
        let current = fs::read_link(daemon.path().join("qera-out/current")).unwrap();
        assert_eq!(current, Path::new("generations/000001"), "{name}");
    }
}

/// What was not corrected is not said to be: by a method that corrects nothing, and where there is
/// no quantization error.
#[test]
fn what_was_not_corrected_is_not_said_to_be() {
    let daemon = daemon_with_shards(BINARY);
    let run = daemon.run(&once_with(&["--method", "w-only"]));
    let said = "(0 layers corrected, 3 solved without correction, 0 starved,";
    expect(&run, 0, &[said, "q_proj: error", ", not corrected"]);
    assert!(!run.log.contains("held-out"), "{}", run.log);
    check_told(&daemon, "0 of 3 layers corrected", &[Q, K, DOWN]);

    let daemon = daemon_with_shards(BINARY);
    write_checkpoint(&daemon.path().join("checkpoint"), &[1.0; 48]);
    let run = daemon.run(&once_with(&[]));
    let said = "(2 layers corrected, 1 solved without correction, 0 starved,";
    expect(&run, 0, &[said, "q_proj: nothing to correct"]);
    assert!(!run.log.contains("x0.000"), "{}", run.log);
    let of_others = run.log.matches("held-out x0.").count();
    assert_eq!(of_others, 2, "{}", run.log);
    check_told(&daemon, "2 of 3 layers corrected", &[Q]);
}

/// What the generation's README says, and `status` of layers that were not corrected.
fn check_told(daemon: &TestDaemon, readme: &str, uncorrected: &[&str]) {
    let text = fs::read_to_string(daemon.path().join("qera-out/current/README.md")).unwrap();
    assert!(text.contains(readme), "{text}");
    let status = daemon.status();
    for layer in status["layers"].as_array().unwrap() {
        let name = layer["name"].as_str().unwrap();
        assert_eq!(
            layer["error_with"].is_null(),
            uncorrected.contains(&name),
            "{layer}"
        );
        assert!(layer["error_without"].is_number(), "{layer}");
    }
}

/// R of three rows has rank three, whatever f32 sums leave behind it.
#[test]
fn no_more_rank_than_rows() {
    let daemon = daemon_with_shards(BINARY);
    remove_shards(&daemon);
    let rows = [TensorToWrite::f32(Q, &[3, 8], &sine_values(24, 0.4))];
    write_safetensors(&shard_path(&daemon, "only"), &rows, &[]);
    let run = daemon.run(&once_with(&["--shrinkage", "0", "--rank-for", "*q_proj=6"]));
    expect(
        &run,
        0,
        &[
            "3 rows for 8 channels",
            "q_proj: numerical rank 3 is below rank 6",
        ],
    );
    assert_eq!(daemon.adapter("qera-out").layer(Q)["rank_used"], 3);
}
