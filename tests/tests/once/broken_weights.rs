//! Weights that are NaN, infinite, or of a type that is not read: found before a row is folded, and
//! with `--skip-broken` left out by name.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::{
    DOWN, K, Q, daemon_with_shards, once_with, sine_values, write_checkpoint,
};
use safetensors::SafeTensors;

use super::BINARY;

/// A daemon's folder whose q has a NaN at row 2, column 5.
fn daemon_with_a_nan() -> TestDaemon {
    let daemon = daemon_with_shards(BINARY);
    let mut q = sine_values(48, 0.0);
    q[2 * 8 + 5] = f32::NAN;
    write_checkpoint(&daemon.path().join("checkpoint"), &q);
    daemon
}

#[test]
fn a_nan_is_found_before_a_row_is_folded() {
    let daemon = daemon_with_a_nan();
    let said = [
        "checkpoint/model.safetensors: tensor 'model.layers.0.self_attn.q_proj.weight'",
        "NaN at row 2, column 5",
        "--skip-broken",
    ];
    let refused = daemon.run(&once_with(&[]));
    expect(&refused, 1, &said);
    assert!(!refused.log.contains("folded"), "{}", refused.log);
    assert!(!daemon.path().join("qera-out").exists(), "nothing is begun");
    let plan = ["plan", "--checkpoint", "checkpoint", "--block-size", "4"];
    expect(&daemon.run(&plan), 1, &said);
}

/// Far behind the first piece that is looked at, and infinite, and in sixteen bits.
#[test]
fn the_last_value_of_a_large_weight_is_found_as_well() {
    let daemon = daemon_with_shards(BINARY);
    let mut down = vec![1.0; 3000 * 12];
    down[2999 * 12 + 11] = f32::NEG_INFINITY;
    let checkpoint = daemon.path().join("checkpoint/model.safetensors");
    let name = format!("{DOWN}.weight");
    for of in [TensorToWrite::f32, TensorToWrite::f16, TensorToWrite::bf16] {
        write_safetensors(&checkpoint, &[of(&name, &[3000, 12], &down)], &[]);
        let said = ["down_proj.weight", "-inf at row 2999, column 11"];
        expect(&daemon.run(&once_with(&[])), 1, &said);
    }
}

#[test]
fn broken_layers_are_left_out_by_name() {
    let daemon = daemon_with_a_nan();
    let run = daemon.run(&once_with(&["--skip-broken", "--emit-base"]));
    let named = format!("warning: not corrected: {Q}.weight [6, 8]");
    let why = "NaN or infinite at row 2, column 5: left out by --skip-broken";
    expect(&run, 0, &[&named, why, "2 layers corrected"]);
    let adapter = daemon.adapter("qera-out");
    let names: Vec<_> = adapter.layers().iter().map(|l| l["name"].clone()).collect();
    assert_eq!(names, [DOWN, K], "k is fed by the rows of q");
    assert_eq!(adapter.layer(K)["rows"], 1200);
    // It stays as it is in the base.
    let [before, base] = ["checkpoint", "qera-out/base"]
        .map(|folder| fs::read(daemon.path().join(folder).join("model.safetensors")).unwrap());
    let tensor = |bytes: &[u8], module: &str| {
        let file = SafeTensors::deserialize(bytes).unwrap();
        file.tensor(&format!("{module}.weight"))
            .unwrap()
            .data()
            .to_vec()
    };
    assert_eq!(tensor(&before, Q), tensor(&base, Q));
    assert_ne!(tensor(&before, K), tensor(&base, K));
    // It is said again, and nothing else is: the fingerprint is that of the layers that stay.
    let again = once_with(&["--skip-broken"]);
    expect(&daemon.run(&again), 0, &[&named, why, "nothing new"]);
    let plan = "plan --checkpoint checkpoint --watch activations --skip-broken --block-size 4";
    let plan = daemon.run(&plan.split(' ').collect::<Vec<_>>());
    expect(&plan, 0, &[]);
    let (q, k) = (format!("{Q}.weight [6, 8]"), format!("{K}  "));
    let of_plan = |words: &str| plan.output.contains(words);
    assert!(
        of_plan(&q) && of_plan(why) && of_plan(&k),
        "{}",
        plan.output
    );
    assert!(!of_plan(&format!("{Q}  ")), "{}", plan.output);

    let only = once_with(&["--skip-broken", "--include", Q, "--out", "only"]);
    expect(&daemon.run(&only), 1, &[&named, why]);
}

/// A type that is not read is as good as broken; in a settings file as on the command line.
#[test]
fn layers_of_an_unread_type_are_left_out_by_name() {
    let daemon = daemon_with_shards(BINARY);
    let tensors = [
        TensorToWrite::f32(&format!("{Q}.weight"), &[6, 8], &sine_values(48, 0.0)),
        TensorToWrite::new(&format!("{K}.weight"), "F8_E4M3", &[4, 8], vec![0; 32]),
    ];
    let checkpoint = daemon.path().join("checkpoint/model.safetensors");
    write_safetensors(&checkpoint, &tensors, &[]);
    let options = ["--exclude", "*.down_proj"];
    let said = ["k_proj.weight", "has dtype F8_E4M3", "--skip-broken"];
    expect(&daemon.run(&once_with(&options)), 1, &said);
    fs::write(daemon.path().join("qera.toml"), "skip-broken = true\n").unwrap();
    let options = [&options[..], &["--config", "qera.toml"]].concat();
    let said = format!("not corrected: {K}.weight [4, 8]");
    let why = "has dtype F8_E4M3, which is not read: left out by --skip-broken";
    let with = |more: &[&str]| daemon.run(&once_with(&[&options[..], more].concat()));
    expect(&with(&[]), 0, &[&said, why, "1 layers corrected"]);
    let named = ["--include", K, "--include", Q, "--rank-for", "*.q_proj=1"];
    expect(&with(&named), 0, &[&said, why, "published generation 2"]);
    let shown = daemon.run(&["config", "--show", "--config", "qera.toml"]);
    assert!(
        shown.output.contains("skip-broken = true"),
        "{}",
        shown.output
    );
    let shown = daemon.run(&["config", "--show"]);
    assert!(
        shown.output.contains("skip-broken = false"),
        "{}",
        shown.output
    );
}

/// A weight without a number is broken as well.
#[test]
fn an_empty_weight_is_left_out_by_name() {
    let daemon = daemon_with_shards(BINARY);
    let tensors = [
        TensorToWrite::f32(&format!("{K}.weight"), &[0, 8], &[]),
        TensorToWrite::f32(&format!("{DOWN}.weight"), &[8, 12], &sine_values(96, 2.0)),
        TensorToWrite::f32(&format!("{Q}.weight"), &[6, 8], &sine_values(48, 0.0)),
    ];
    let checkpoint = daemon.path().join("checkpoint/model.safetensors");
    write_safetensors(&checkpoint, &tensors, &[]);
    expect(
        &daemon.run(&once_with(&[])),
        1,
        &["k_proj.weight' is empty"],
    );
    let skipped = daemon.run(&once_with(&["--skip-broken"]));
    expect(
        &skipped,
        0,
        &["2 layers corrected", "empty: left out by --skip-broken"],
    );
}
