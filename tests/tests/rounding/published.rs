//! What is said of a rounded W~ where it is published: manifest, base, README, plan; and that a
//! base belongs to what was published with it.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::{
    DOWN, K, LIVE_OPTIONS, Q, daemon_with_shards, daemon_without_shards, sine_values,
    write_checkpoint,
};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::{BINARY, PROJECTED, once_rounded, rows_of};

const RECORD: &str = "qera-out/base/qera_base.json";
const MODEL: &str = "qera-out/base/model.safetensors";

fn base_record(daemon: &TestDaemon) -> Value {
    serde_json::from_slice(&fs::read(daemon.path().join(RECORD)).unwrap()).unwrap()
}

#[test]
fn the_manifest_says_which_w_it_is_for() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_rounded(&[])), 0, &["base written"]);
    let (adapter, base) = (daemon.adapter("qera-out"), base_record(&daemon));
    let manifest = &adapter.manifest;
    assert_eq!(manifest["manifest_version"], 5);
    let asked = json!({"name": "projected", "shrinkage": "rule", "base_share": 0.01});
    assert_eq!(manifest["settings"]["rounding"], asked);
    assert_eq!(base["rounded"]["settings"], asked);
    assert_eq!(base["rounded"]["ranks"], json!([2, 2, 2]));
    let digest = &manifest["fingerprints"]["rounded"];
    assert!(digest.is_string() && base["rounded"]["digest"] == *digest);
    for layer in adapter.layers() {
        let of = &layer["rounding"];
        assert_eq!(of["name"], "projected", "{of}");
        assert_eq!(of["rank"], 2, "{of}");
        assert_eq!(of["base_share"], 0.01, "{of}");
        let position = &manifest["inputs"]["journal_position"];
        assert_eq!(of["journal_position"], *position, "{of}");
        let rows = of["rows"].as_u64().unwrap();
        assert!((1..=1200).contains(&rows), "{of}");
        let a = of["shrinkage"].as_f64().unwrap();
        assert!(a > 0.0 && a < 1.0, "{of}");
        for key in ["error_alone", "error_nearest", "error_with"] {
            assert!(of["error"][key].as_f64().unwrap() > 0.0, "{of}");
        }
    }
    let readme = fs::read_to_string(daemon.path().join("qera-out/current/README.md")).unwrap();
    for said in [
        "and on no others: they were rounded together with it (projected, --base-share 0.01",
        "| rounded to nearest, without adapter |",
    ] {
        assert!(readme.contains(said), "{said}: {readme}");
    }
    let verify = daemon.run(&["verify", "--adapter", "qera-out/current"]);
    expect(&verify, 0, &[]);
}

/// The layer has no correction, and its W~ is in the base all the same.
#[test]
fn a_layer_without_rows_is_rounded_to_nearest() {
    let daemon = daemon_without_shards(BINARY);
    rows_of(&daemon, "a", Q, [400, 8], 0.0);
    expect(&daemon.run(&once_rounded(&[])), 0, &[]);
    let adapter = daemon.adapter("qera-out");
    let of = |layer: &str| adapter.layer(layer)["rounding"].clone();
    assert_eq!(of(DOWN)["name"], "nearest");
    assert!(of(DOWN)["error"].is_null() && of(Q)["error"].is_object());
    assert_eq!((&of(K)["rank"], &of(DOWN)["rank"]), (&json!(2), &json!(0)));
    assert_eq!(base_record(&daemon)["rounded"]["ranks"], json!([0, 2, 2]));
}

#[test]
fn a_base_is_written_once_and_again_only_where_it_is_gone() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_rounded(&[])), 0, &[]);
    let (record, model) = (base_record(&daemon), daemon.path().join(MODEL));
    let bytes = fs::read(&model).unwrap();
    let again = daemon.run(&once_rounded(&[]));
    expect(&again, 0, &["nothing new"]);
    assert!(!again.log.contains("base written"), "{}", again.log);
    fs::remove_dir_all(daemon.path().join("qera-out/base")).unwrap();
    let restored = daemon.run(&once_rounded(&[]));
    expect(&restored, 0, &["base written", "published generation 2"]);
    assert!(!restored.log.contains("rounded by"), "{}", restored.log);
    assert_eq!(base_record(&daemon), record);
    assert!(fs::read(&model).unwrap() == bytes);
}

#[test]
fn what_another_run_rounded_is_refused() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_rounded(&[])), 0, &[]);
    let fresh = |more: &[&'static str]| once_rounded(&[&["--state", "fresh"], more].concat());
    let lower = daemon.run(&fresh(&["--rank-for", "*=1"]));
    let said = "was rounded for rank 2 (model.layers.0.mlp.down_proj), this run's W~ will be rounded for rank 1";
    expect(&lower, 4, &[said, "choose another --out"]);
    let share = daemon.run(&fresh(&["--base-share", "0.5"]));
    let said = "this run rounds by projected, --base-share 0.5, shrinkage rule";
    expect(&share, 4, &[said]);
}

/// A row is on the grid wherever it stands.
#[test]
fn a_w_that_was_exchanged_is_found() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_rounded(&[])), 0, &[]);
    let path = daemon.path().join(MODEL);
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter().map(|(name, tensor)| {
        let mut data = tensor.data().to_vec();
        if name == format!("{Q}.weight") {
            let row = data.len() / 6;
            data.rotate_left(row);
        }
        TensorToWrite::new(&name, &tensor.dtype().to_string(), tensor.shape(), data)
    });
    let tensors: Vec<_> = tensors.collect();
    write_safetensors(&path, &tensors, &[]);
    let verify = daemon.run(&["verify", "--adapter", "qera-out/current"]);
    let said = format!("'{Q}.weight' is not the W~ that qera_base.json was written for");
    assert_eq!(verify.code, 1);
    assert!(verify.output.contains(&said), "{}", verify.output);
}

fn plan(daemon: &TestDaemon, more: &[&str]) -> Value {
    let options = [
        &["plan", "--log-format", "json"],
        &LIVE_OPTIONS[..],
        &PROJECTED,
        more,
    ];
    let run = daemon.run(&options.concat());
    expect(&run, 0, &[]);
    serde_json::from_str::<Value>(&run.output).unwrap()
}

fn rounds(plan: &Value) -> bool {
    let mut stages = plan["stages"].as_array().unwrap().iter();
    stages.any(|stage| stage["name"] == "rounding, beyond solving")
}

#[test]
fn plan_says_what_the_state_has() {
    let daemon = daemon_with_shards(BINARY);
    let before = plan(&daemon, &[]);
    assert!(
        before["layers"][0]["rounding"]["made"].is_null(),
        "{before}"
    );
    expect(&daemon.run(&once_rounded(&[])), 0, &[]);
    let after = plan(&daemon, &[]);
    assert!(rounds(&before) && !rounds(&after), "{after}");
    assert_eq!(after["round_flops"], 0.0);
    let adapter = daemon.adapter("qera-out");
    for (layer, planned) in adapter
        .layers()
        .iter()
        .zip(after["layers"].as_array().unwrap())
    {
        let made = &planned["rounding"]["made"];
        assert_eq!(planned["name"], layer["name"]);
        assert_eq!(made["errors"], layer["rounding"]["error"], "{made}");
        assert_eq!(made["rows"], layer["rounding"]["rows"], "{made}");
    }
}

/// As a run would: it refuses those of other settings, and makes those of other weights anew.
#[test]
fn plan_takes_no_w_that_a_run_would_not_take() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_rounded(&[])), 0, &[]);
    let made = |plan: &Value| -> Vec<String> {
        let layers = plan["layers"].as_array().unwrap().iter();
        let made = layers.filter(|layer| layer["rounding"]["made"].is_object());
        made.map(|layer| layer["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(made(&plan(&daemon, &[])), [DOWN, K, Q]);
    let share = plan(&daemon, &["--base-share", "0.5"]);
    assert!(made(&share).is_empty() && rounds(&share), "{share}");
    let lower = ["--rank-for", "*_proj=1"];
    let lower_rank = plan(&daemon, &lower);
    assert!(made(&lower_rank).is_empty(), "{lower_rank}");
    let insists = plan(&daemon, &[&lower[..], &["--lower-rank"]].concat());
    assert_eq!(made(&insists), [DOWN, K, Q]);
    write_checkpoint(&daemon.path().join("checkpoint"), &sine_values(48, 0.25));
    let other = plan(&daemon, &["--new-checkpoint"]);
    assert_eq!(made(&other), [DOWN, K]);
    assert!(rounds(&other), "{other}");
    assert!(other["round_flops"].as_f64().unwrap() > 0.0, "{other}");
}

/// Half, one or two times the odds of the rule, which it is where no block can be left out.
#[test]
fn an_automatic_shrinkage_is_one_of_three() {
    let auto = ["--rounding-shrinkage", "auto"];
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_rounded(&auto)), 0, &[]);
    let adapter = daemon.adapter("qera-out");
    let asked = &adapter.manifest["settings"]["rounding"]["shrinkage"];
    assert_eq!(asked, "auto");
    // Times the odds of the rule, 3 m / N.
    let times = |of: &Value, m: f64| {
        let (a, rows) = (of["shrinkage"].as_f64().unwrap(), &of["rows"]);
        a / (1.0 - a) * rows.as_f64().unwrap() / (3.0 * m)
    };
    for (layer, m) in [(Q, 8.0), (K, 8.0), (DOWN, 12.0)] {
        let of = &adapter.layer(layer)["rounding"];
        assert_eq!(of["blocks_left_out"], 1, "{of}");
        let found = times(of, m);
        let one_of = [0.5, 1.0, 2.0].map(|times| (found / times - 1.0).abs() < 1e-9);
        assert!(one_of.contains(&true), "{found} times: {of}");
    }
    let few = daemon_without_shards(BINARY);
    for (shard, phase) in [("a", 0.0), ("b", 1.0), ("c", 2.0)] {
        rows_of(&few, shard, Q, [300, 8], phase);
    }
    expect(&few.run(&once_rounded(&auto)), 0, &[]);
    let adapter = few.adapter("qera-out");
    for layer in [Q, K] {
        let of = &adapter.layer(layer)["rounding"];
        assert_eq!(
            (&of["blocks_left_out"], &of["rows"]),
            (&json!(0), &json!(900))
        );
        assert!((times(of, 8.0) - 1.0).abs() < 1e-9, "{of}");
    }
}
